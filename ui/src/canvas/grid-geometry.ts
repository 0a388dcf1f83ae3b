// The grid of runs by task: where its cells are, what is under a point, how the keyboard moves.

import type { Grid, GridCell, GridRow } from "../api/types";

export const CELL = 16;
export const GAP = 2;
export const STEP = CELL + GAP;
/** Height of the bars over the columns. */
export const HEAD = 58;

export interface Cell {
  run: number;
  row: number;
}

/** Rows that are not inside a folded group, as places in `rows`. */
export function visibleRows(rows: GridRow[], folded: ReadonlySet<string>): number[] {
  const out: number[] = [];
  let hiddenBelow = Number.POSITIVE_INFINITY;
  rows.forEach((row, i) => {
    if (row.depth > hiddenBelow) return;
    hiddenBelow = row.group && folded.has(row.path) ? row.depth : Number.POSITIVE_INFINITY;
    out.push(i);
  });
  return out;
}

/** The cell under a point of the scrolled content; -1 as row is the run's own bar. */
export function hit(x: number, y: number, runs: number, rows: number): Cell | null {
  const run = Math.floor(x / STEP);
  if (x < 0 || run >= runs) return null;
  if (y < 0) return null;
  if (y < HEAD) return { run, row: -1 };
  const row = Math.floor((y - HEAD) / STEP);
  return row < rows ? { run, row } : null;
}

/** All cells of the rectangle between two. */
export function rectangle(a: Cell, b: Cell): Cell[] {
  const out: Cell[] = [];
  for (let run = Math.min(a.run, b.run); run <= Math.max(a.run, b.run); run += 1) {
    for (let row = Math.max(0, Math.min(a.row, b.row)); row <= Math.max(a.row, b.row); row += 1) {
      out.push({ run, row });
    }
  }
  return out;
}

export function moved(
  cell: Cell,
  key: string,
  runs: number,
  rows: number,
  page: number,
): Cell | null {
  const clamp = (value: number, low: number, high: number) => Math.max(low, Math.min(high, value));
  const at = (run: number, row: number) => ({
    run: clamp(run, 0, runs - 1),
    row: clamp(row, -1, rows - 1),
  });
  switch (key) {
    case "ArrowLeft":
      return at(cell.run - 1, cell.row);
    case "ArrowRight":
      return at(cell.run + 1, cell.row);
    case "ArrowUp":
      return at(cell.run, cell.row - 1);
    case "ArrowDown":
      return at(cell.run, cell.row + 1);
    case "PageUp":
      return at(cell.run, cell.row - page);
    case "PageDown":
      return at(cell.run, cell.row + page);
    case "Home":
      return at(0, cell.row);
    case "End":
      return at(runs - 1, cell.row);
    default:
      return null;
  }
}

export interface CellInfo {
  state: string;
  task: number;
  attempt: number;
  durationMs: number | null;
  count: number;
  failed: number;
}

export function readCell(grid: Grid, cell: GridCell): CellInfo {
  const [state, task, attempt, duration, count, failed] = cell;
  return {
    state: grid.states[state] ?? "unknown",
    task,
    attempt,
    durationMs: duration < 0 ? null : duration,
    count,
    failed,
  };
}

/** Older runs come before: one grid from pages that may name different rows. */
export function joinGrids(pages: Grid[]): Grid | null {
  const newest = pages[0];
  if (!newest) return null;
  if (pages.length === 1) return newest;
  const rows = [...newest.rows];
  const place = new Map(rows.map((row, i) => [row.path, i]));
  for (const page of pages.slice(1)) {
    for (const row of page.rows) {
      if (!place.has(row.path)) {
        place.set(row.path, rows.length);
        rows.push(row);
      }
    }
  }
  const runs: Grid["runs"] = [];
  const cells: Grid["cells"] = [];
  const seen = new Set<string>();
  for (const page of [...pages].reverse()) {
    const same = page.states.every((word, i) => newest.states[i] === word);
    const states = same ? null : page.states.map((word) => newest.states.indexOf(word));
    page.runs.forEach((run, r) => {
      // A run may be on two pages when new ones came between their readings.
      if (seen.has(run.id)) return;
      seen.add(run.id);
      const column: (GridCell | null)[] = new Array(rows.length).fill(null);
      page.rows.forEach((row, i) => {
        const cell = page.cells[r]?.[i] ?? null;
        const at = place.get(row.path);
        if (!cell || at === undefined) return;
        column[at] = states
          ? [states[cell[0]] ?? 0, cell[1], cell[2], cell[3], cell[4], cell[5]]
          : cell;
      });
      runs.push(run);
      cells.push(column);
    });
  }
  return { rows, runs, cells, states: newest.states, next: pages.at(-1)?.next ?? null };
}
