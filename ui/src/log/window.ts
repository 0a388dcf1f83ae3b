// Which lines a scroll position shows. Browsers cap an element's height, so a long log's scroll
// height is scaled; line numbers stay exact.

export const LINE_PX = 18;
const MAX_PX = 8_000_000;

export interface Geometry {
  /** Height of the scrolled content. */
  height: number;
  /** First line in view, from 0, with its fraction. */
  first: number;
  /** How many lines fit. */
  fit: number;
}

export function contentHeight(total: number, viewport: number): number {
  return Math.max(viewport, Math.min(total * LINE_PX, MAX_PX));
}

export function firstLine(scrollTop: number, total: number, viewport: number): Geometry {
  const height = contentHeight(total, viewport);
  const fit = viewport / LINE_PX;
  const most = Math.max(0, total - fit);
  const range = Math.max(1, height - viewport);
  const first = height <= viewport ? 0 : Math.min(most, (scrollTop / range) * most);
  return { height, first: Math.max(0, first), fit };
}

/** The scroll position that puts line `index` (from 0) at the top of the view. */
export function scrollFor(index: number, total: number, viewport: number): number {
  const height = contentHeight(total, viewport);
  const most = Math.max(0, total - viewport / LINE_PX);
  if (most === 0) return 0;
  return (Math.min(Math.max(0, index), most) / most) * (height - viewport);
}
