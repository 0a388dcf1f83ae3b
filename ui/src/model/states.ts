// The states of runs and tasks as people see them: a colour, a shape, a word, an order of concern.

export type Look =
  | "succeeded"
  | "running"
  | "failed"
  | "waiting"
  | "skipped"
  | "upstream"
  | "suspended"
  | "queued"
  | "cancelled"
  | "pending";

interface StateInfo {
  look: Look;
  word: string;
  /** Greater is what the eye should find first; a group shows its greatest. */
  concern: number;
  finished: boolean;
}

const info = (look: Look, word: string, concern: number, finished = false): StateInfo => ({
  look,
  word,
  concern,
  finished,
});

const STATES: Record<string, StateInfo> = {
  failed: info("failed", "Failed", 100, true),
  upstream_failed: info("upstream", "Upstream failed", 90, true),
  suspended: info("suspended", "Suspended", 80),
  paused: info("suspended", "Paused", 79),
  retry_wait: info("waiting", "Waits to retry", 75),
  cancelling: info("cancelled", "Cancelling", 72),
  running: info("running", "Running", 70),
  queued: info("queued", "Queued", 60),
  ready: info("queued", "Ready", 55),
  deferred: info("waiting", "Deferred", 52),
  rescheduled: info("waiting", "Rescheduled", 51),
  pending: info("pending", "Pending", 40),
  cancelled: info("cancelled", "Cancelled", 30, true),
  succeeded: info("succeeded", "Succeeded", 20, true),
  skipped: info("skipped", "Skipped", 10, true),
  removed: info("pending", "Removed", 5, true),
  // Of partitions and assets.
  present: info("succeeded", "Present", 20, true),
  ok: info("succeeded", "OK", 20, true),
  fresh: info("succeeded", "Fresh", 20, true),
  stale: info("waiting", "Stale", 50, true),
  missing: info("skipped", "Missing", 10, true),
  unknown: info("pending", "Unknown", 5, true),
  // Of triggers' decisions.
  started: info("succeeded", "Started", 20, true),
  missed: info("failed", "Missed", 95, true),
};

const UNKNOWN = info("pending", "Unknown", 0);

/** A state this version does not know is shown by its own word, never hidden. */
export function stateInfo(state: string): StateInfo {
  const known = Object.hasOwn(STATES, state) ? STATES[state] : undefined;
  return known ?? { ...UNKNOWN, word: state.replaceAll("_", " ") };
}

export const lookOf = (state: string): Look => stateInfo(state).look;
export const wordOf = (state: string): string => stateInfo(state).word;
export const isFinished = (state: string): boolean => stateInfo(state).finished;

export const RUN_STATES = [
  "queued",
  "running",
  "paused",
  "cancelling",
  "succeeded",
  "failed",
  "cancelled",
] as const;

export const TASK_STATES = [
  "pending",
  "ready",
  "queued",
  "running",
  "retry_wait",
  "deferred",
  "rescheduled",
  "suspended",
  "cancelling",
  "succeeded",
  "failed",
  "skipped",
  "upstream_failed",
  "cancelled",
  "removed",
] as const;

export type Counts = Record<string, number>;

/** States by concern, with their counts; zero ones left out. */
export function orderedCounts(counts: Counts): [state: string, count: number][] {
  return Object.entries(counts)
    .filter(([, n]) => n > 0)
    .sort((a, b) => stateInfo(b[0]).concern - stateInfo(a[0]).concern || a[0].localeCompare(b[0]));
}

/** The state a group of tasks shows. */
export function worstState(counts: Counts): string | null {
  return orderedCounts(counts)[0]?.[0] ?? null;
}

export function totalOf(counts: Counts): number {
  let total = 0;
  for (const n of Object.values(counts)) total += n;
  return total;
}

export function addCounts(into: Counts, more: Counts): Counts {
  for (const [state, n] of Object.entries(more)) into[state] = (into[state] ?? 0) + n;
  return into;
}

/** "3 failed, 1 running, 12 succeeded": what a screen reader and a tooltip say of a bar. */
export function countsText(counts: Counts): string {
  const parts = orderedCounts(counts).map(
    ([state, n]) => `${n.toLocaleString("en")} ${wordOf(state).toLowerCase()}`,
  );
  return parts.length > 0 ? parts.join(", ") : "none";
}

/** Share of a bar for each state: at least `floor` of the width, so that one failure in 100,000
 * tasks is seen; the rest is shared in proportion. Sums to 1. */
export function barShares(counts: Counts, floor = 0.03): { state: string; share: number }[] {
  const entries = orderedCounts(counts);
  const total = totalOf(counts);
  if (total === 0) return [];
  const raised = entries.map(([state, n]) => ({ state, share: Math.max(n / total, floor) }));
  const sum = raised.reduce((acc, part) => acc + part.share, 0);
  return raised.map((part) => ({ state: part.state, share: part.share / sum }));
}
