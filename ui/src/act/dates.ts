// A day of a calendar in a zone as an instant.

/** The zone's offset from UTC at an instant, in milliseconds. */
function offsetAt(at: number, zone: string): number {
  const parts: Record<string, number> = {};
  const format = new Intl.DateTimeFormat("en-US", {
    timeZone: zone,
    hourCycle: "h23",
    year: "numeric",
    month: "numeric",
    day: "numeric",
    hour: "numeric",
    minute: "numeric",
    second: "numeric",
  });
  for (const part of format.formatToParts(at)) parts[part.type] = Number(part.value);
  const local = Date.UTC(
    parts.year ?? 0,
    (parts.month ?? 1) - 1,
    parts.day ?? 1,
    parts.hour ?? 0,
    parts.minute ?? 0,
    parts.second ?? 0,
  );
  return local - Math.floor(at / 1000) * 1000;
}

/** The start of the day (`2026-03-29`), some days later, in the zone. Where midnight does not exist
 * it is the first instant after the gap. */
export function dateInZone(date: string, zone: string, daysLater: number): string {
  const [year, month, day] = date.split("-").map(Number);
  const local = Date.UTC(year ?? 1970, (month ?? 1) - 1, (day ?? 1) + daysLater);
  let at = local - offsetAt(local, zone);
  at = local - offsetAt(at, zone);
  // In a gap the two offsets disagree for ever: the later one is after it.
  if (at + offsetAt(at, zone) !== local)
    at = local - Math.min(offsetAt(at, zone), offsetAt(at - 7_200_000, zone));
  return new Date(at).toISOString().replace(".000Z", "Z");
}
