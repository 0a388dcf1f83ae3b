// Days of a month in weeks from Monday, as dates.

const two = (n: number): string => String(n).padStart(2, "0");

/** Weeks of seven; days of other months are null. */
export function weeksOf(year: number, month: number): (string | null)[][] {
  const first = new Date(Date.UTC(year, month, 1));
  const days = new Date(Date.UTC(year, month + 1, 0)).getUTCDate();
  const lead = (first.getUTCDay() + 6) % 7;
  const cells: (string | null)[] = new Array<string | null>(lead).fill(null);
  for (let day = 1; day <= days; day += 1) cells.push(`${year}-${two(month + 1)}-${two(day)}`);
  while (cells.length % 7 !== 0) cells.push(null);
  const weeks: (string | null)[][] = [];
  for (let i = 0; i < cells.length; i += 7) weeks.push(cells.slice(i, i + 7));
  return weeks;
}
