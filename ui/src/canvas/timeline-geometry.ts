// Time along x: what span is in view, where its ticks are, how it zooms.

export interface Span {
  from: number;
  to: number;
}

export const toX = (at: number, span: Span, width: number): number =>
  ((at - span.from) / (span.to - span.from)) * width;

export const toTime = (x: number, span: Span, width: number): number =>
  span.from + (x / width) * (span.to - span.from);

/** Zooms by a factor around a point, inside `whole`; never below 10 ms across. */
export function zoomed(span: Span, whole: Span, around: number, factor: number): Span {
  const size = Math.max(10, Math.min(whole.to - whole.from, (span.to - span.from) * factor));
  const share = (around - span.from) / (span.to - span.from);
  return inside({ from: around - size * share, to: around + size * (1 - share) }, whole);
}

export function inside(span: Span, whole: Span): Span {
  const size = Math.min(span.to - span.from, whole.to - whole.from);
  const from = Math.max(whole.from, Math.min(span.from, whole.to - size));
  return { from, to: from + size };
}

const STEPS = [
  1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 15_000, 30_000, 60_000, 120_000,
  300_000, 600_000, 900_000, 1_800_000, 3_600_000, 7_200_000, 10_800_000, 21_600_000, 43_200_000,
  86_400_000, 172_800_000, 604_800_000,
];

/** Offsets from the start, at round steps, with about one for each 110 px. */
export function ticks(span: Span, start: number, width: number): number[] {
  const wanted = Math.max(2, width / 110);
  const raw = (span.to - span.from) / wanted;
  const step = STEPS.find((s) => s >= raw) ?? 604_800_000;
  const out: number[] = [];
  const first = Math.ceil((span.from - start) / step) * step;
  for (let offset = first; start + offset <= span.to; offset += step) out.push(offset);
  return out;
}
