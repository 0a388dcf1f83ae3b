// Instants in one time zone at a time: UTC, the browser's, or the workflow's own.

export type ZoneChoice = "utc" | "local" | "workflow";

export function zoneName(choice: ZoneChoice, workflowZone: string | null): string {
  if (choice === "utc") return "UTC";
  if (choice === "workflow" && workflowZone && isZone(workflowZone)) return workflowZone;
  return Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
}

export function isZone(name: string): boolean {
  try {
    new Intl.DateTimeFormat("en", { timeZone: name });
    return true;
  } catch {
    return false;
  }
}

const formatters = new Map<string, Intl.DateTimeFormat>();

function formatter(zone: string): Intl.DateTimeFormat {
  let made = formatters.get(zone);
  if (!made) {
    made = new Intl.DateTimeFormat("en-CA", {
      timeZone: zone,
      year: "numeric",
      month: "2-digit",
      day: "2-digit",
      hour: "2-digit",
      minute: "2-digit",
      second: "2-digit",
      hourCycle: "h23",
      timeZoneName: "shortOffset",
    });
    formatters.set(zone, made);
  }
  return made;
}

interface Fields {
  year: string;
  month: string;
  day: string;
  hour: string;
  minute: string;
  second: string;
  offset: string;
}

function fields(at: number, zone: string): Fields {
  const out: Record<string, string> = {};
  for (const part of formatter(zone).formatToParts(at)) out[part.type] = part.value;
  return {
    year: out.year ?? "",
    month: out.month ?? "",
    day: out.day ?? "",
    hour: out.hour ?? "",
    minute: out.minute ?? "",
    second: out.second ?? "",
    offset: out.timeZoneName ?? "",
  };
}

/** 2026-11-23 20:58:01 GMT+2 */
export function formatInstant(at: number, zone: string): string {
  if (!Number.isFinite(at)) return "–";
  const f = fields(at, zone);
  const offset = /^GMT([+-]0)?$/.test(f.offset) ? "UTC" : f.offset;
  return `${f.year}-${f.month}-${f.day} ${f.hour}:${f.minute}:${f.second} ${offset}`;
}

/** 20:58:01 */
export function formatClock(at: number, zone: string): string {
  const f = fields(at, zone);
  return `${f.hour}:${f.minute}:${f.second}`;
}

/** 20:58:01.250 */
export function formatClockMs(at: number, zone: string): string {
  return `${formatClock(at, zone)}.${String((((at % 1000) + 1000) % 1000) | 0).padStart(3, "0")}`;
}

/** 11-23 20:58 */
export function formatShort(at: number, zone: string): string {
  const f = fields(at, zone);
  return `${f.month}-${f.day} ${f.hour}:${f.minute}`;
}

/** 2026-11-23 */
export function formatDate(at: number, zone: string): string {
  const f = fields(at, zone);
  return `${f.year}-${f.month}-${f.day}`;
}

/** An interval without what both ends share: "2026-11-23 00:00 → 11-24 00:00". */
export function formatInterval(start: number, end: number, zone: string): string {
  const a = fields(start, zone);
  const b = fields(end, zone);
  const midnight = (f: Fields) => f.hour === "00" && f.minute === "00" && f.second === "00";
  const left = `${a.year}-${a.month}-${a.day}`;
  if (midnight(a) && midnight(b)) {
    const days = Math.round((end - start) / 86_400_000);
    return days === 1 ? left : `${left} → ${b.year}-${b.month}-${b.day}`;
  }
  const sameDay = a.year === b.year && a.month === b.month && a.day === b.day;
  const right = sameDay ? `${b.hour}:${b.minute}` : `${b.month}-${b.day} ${b.hour}:${b.minute}`;
  return `${left} ${a.hour}:${a.minute} → ${right}`;
}
