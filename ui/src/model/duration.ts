// Durations as 1h 04m 09s, and relative times as "3 min ago".

const two = (n: number): string => String(n).padStart(2, "0");

/** Exact enough for its size: 820ms, 9.4s, 4m 09s, 1h 04m 09s, 3d 04h. */
export function formatDuration(ms: number | null | undefined): string {
  if (ms === null || ms === undefined || !Number.isFinite(ms)) return "–";
  if (ms < 0) return `-${formatDuration(-ms)}`;
  if (ms < 1000) return `${Math.round(ms)}ms`;
  if (ms < 9_950) return `${(ms / 1000).toFixed(1)}s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes}m ${two(seconds % 60)}s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours}h ${two(minutes % 60)}m ${two(seconds % 60)}s`;
  return `${Math.floor(hours / 24)}d ${two(hours % 24)}h`;
}

/** One figure, for axes and narrow columns. */
export function formatDurationShort(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)}ms`;
  if (ms < 60_000) return `${Math.round(ms / 1000)}s`;
  if (ms < 3_600_000) return `${Math.round(ms / 60_000)}m`;
  if (ms < 172_800_000) return `${Math.round(ms / 3_600_000)}h`;
  return `${Math.round(ms / 86_400_000)}d`;
}

/** The exact length at a round step of an axis: 500ms, 1.5s, 2m 30s, 1h 30m. */
export function formatAxis(ms: number): string {
  const both = (a: string, b: number, unit: string) => (b === 0 ? a : `${a} ${b}${unit}`);
  if (ms === 0) return "0s";
  if (ms < 1000) return `${ms}ms`;
  if (ms < 60_000) return `${ms / 1000}s`;
  if (ms < 3_600_000) return both(`${Math.floor(ms / 60_000)}m`, (ms % 60_000) / 1000, "s");
  if (ms < 86_400_000)
    return both(`${Math.floor(ms / 3_600_000)}h`, (ms % 3_600_000) / 60_000, "m");
  return both(`${Math.floor(ms / 86_400_000)}d`, (ms % 86_400_000) / 3_600_000, "h");
}

/** How long from start to end, or to `now` while there is no end. */
export function spanMs(
  start: string | null | undefined,
  end: string | null | undefined,
  now: number,
): number | null {
  if (!start) return null;
  const from = Date.parse(start);
  if (Number.isNaN(from)) return null;
  const to = end ? Date.parse(end) : now;
  return Math.max(0, to - from);
}

const STEPS: [limit: number, size: number, unit: string][] = [
  [60_000, 1000, "s"],
  [3_600_000, 60_000, "min"],
  [86_400_000, 3_600_000, "h"],
  [14 * 86_400_000, 86_400_000, "d"],
  [60 * 86_400_000, 7 * 86_400_000, "wk"],
  [730 * 86_400_000, 30.44 * 86_400_000, "mo"],
];

/** "3 min ago", "in 2 h", "now" within five seconds. */
export function formatRelative(at: number, now: number): string {
  const delta = now - at;
  const size = Math.abs(delta);
  if (size < 5_000) return "now";
  const step = STEPS.find(([limit]) => size < limit);
  const [, unitSize, unit] = step ?? [0, 365.25 * 86_400_000, "y"];
  const text = `${Math.floor(size / unitSize)} ${unit}`;
  return delta > 0 ? `${text} ago` : `in ${text}`;
}

export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  const units = ["kB", "MB", "GB", "TB", "PB"];
  let value = bytes / 1000;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value < 9.95 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** 1,234 up to 99,999; then 123k, 1.2M. */
export function formatCount(n: number): string {
  if (n < 100_000) return n.toLocaleString("en");
  if (n < 999_500) return `${Math.round(n / 1000)}k`;
  const millions = n / 1_000_000;
  return `${millions < 9.95 ? millions.toFixed(1) : Math.round(millions)}M`;
}

/** `1 task`, `2,000 tasks`. */
export function plural(n: number, word: string): string {
  return `${formatCount(n)} ${word}${n === 1 ? "" : "s"}`;
}
