import { describe, expect, it } from "vitest";
import type { Grid, GridRow, RunBar } from "../api/types";
import {
  HEAD,
  hit,
  joinGrids,
  moved,
  readCell,
  rectangle,
  STEP,
  visibleRows,
} from "./grid-geometry";

const row = (path: string, group = false): GridRow => ({
  path,
  name: path,
  depth: path.split("/").length - 1,
  group,
  mapped: false,
  kind: "noop",
});
const run = (id: string): RunBar => ({
  id,
  state: "succeeded",
  created_at: "2026-11-23T00:00:00Z",
  started_at: null,
  ended_at: null,
  trigger: "manual",
  version: "v",
  interval_start: null,
  interval_end: null,
  partition: null,
});

describe("hit testing", () => {
  it("finds cells, and the run's bar over them", () => {
    expect(hit(0, HEAD, 10, 5)).toEqual({ run: 0, row: 0 });
    expect(hit(STEP * 3 + 1, HEAD + STEP * 4 + 1, 10, 5)).toEqual({ run: 3, row: 4 });
    expect(hit(STEP * 2, 5, 10, 5)).toEqual({ run: 2, row: -1 });
  });

  it("finds nothing outside", () => {
    expect(hit(-1, HEAD, 10, 5)).toBeNull();
    expect(hit(STEP * 10, HEAD, 10, 5)).toBeNull();
    expect(hit(0, HEAD + STEP * 5, 10, 5)).toBeNull();
  });

  it("takes a rectangle from any corner", () => {
    const cells = rectangle({ run: 3, row: 2 }, { run: 2, row: 1 });
    expect(cells).toEqual([
      { run: 2, row: 1 },
      { run: 2, row: 2 },
      { run: 3, row: 1 },
      { run: 3, row: 2 },
    ]);
  });

  it("moves by keys and stops at the edges", () => {
    const at = { run: 0, row: 0 };
    expect(moved(at, "ArrowRight", 10, 5, 3)).toEqual({ run: 1, row: 0 });
    expect(moved(at, "ArrowLeft", 10, 5, 3)).toEqual(at);
    expect(moved(at, "ArrowUp", 10, 5, 3)).toEqual({ run: 0, row: -1 });
    expect(moved(at, "PageDown", 10, 5, 30)).toEqual({ run: 0, row: 4 });
    expect(moved(at, "End", 10, 5, 3)).toEqual({ run: 9, row: 0 });
    expect(moved(at, "x", 10, 5, 3)).toBeNull();
  });
});

describe("rows", () => {
  it("folds a group with all that is inside of it", () => {
    const rows = [row("a", true), row("a/b", true), row("a/b/c"), row("a/d"), row("e")];
    expect(visibleRows(rows, new Set())).toEqual([0, 1, 2, 3, 4]);
    expect(visibleRows(rows, new Set(["a/b"]))).toEqual([0, 1, 3, 4]);
    expect(visibleRows(rows, new Set(["a"]))).toEqual([0, 4]);
    expect(visibleRows(rows, new Set(["a", "a/b"]))).toEqual([0, 4]);
  });
});

describe("pages of a grid", () => {
  const grid = (rows: string[], runs: string[], value: number): Grid => ({
    rows: rows.map((path) => row(path)),
    runs: runs.map(run),
    cells: runs.map(() => rows.map(() => [value, 1, 1, 10, 1, 0])),
    states: ["pending", "succeeded"],
    next: null,
  });

  it("puts older runs first, and rows of older versions last", () => {
    const joined = joinGrids([
      grid(["a", "b"], ["r3", "r4"], 1),
      grid(["a", "old"], ["r1", "r2"], 0),
    ]);
    expect(joined?.runs.map((r) => r.id)).toEqual(["r1", "r2", "r3", "r4"]);
    expect(joined?.rows.map((r) => r.path)).toEqual(["a", "b", "old"]);
    expect(joined?.cells[0]?.map((cell) => cell?.[0] ?? null)).toEqual([0, null, 0]);
    expect(joined?.cells[3]?.map((cell) => cell?.[0] ?? null)).toEqual([1, 1, null]);
  });

  it("keeps a run once that is on two pages", () => {
    const joined = joinGrids([grid(["a"], ["r2", "r3"], 1), grid(["a"], ["r1", "r2"], 1)]);
    expect(joined?.runs.map((r) => r.id)).toEqual(["r1", "r2", "r3"]);
  });

  it("reads a cell", () => {
    expect(readCell(grid(["a"], ["r"], 1), [1, 7, 2, -1, 100, 3])).toEqual({
      state: "succeeded",
      task: 7,
      attempt: 2,
      durationMs: null,
      count: 100,
      failed: 3,
    });
  });
});
