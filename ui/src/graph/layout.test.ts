import { describe, expect, it } from "vitest";
import type { Graph, GraphNode } from "../api/types";
import { type Box, coneOf, quickLayout, shapeOf, shownGraph } from "./layout";

const node = (id: string, more: Partial<GraphNode> = {}): GraphNode => ({
  id,
  name: id,
  kind: "noop",
  parent: null,
  group: false,
  mapped: false,
  state: null,
  counts: {},
  total: 1,
  task: null,
  attempt: 0,
  started_at: null,
  ended_at: null,
  message: null,
  gate: null,
  condition: null,
  ...more,
});
const edge = (from: string, to: string) => ({ from, to, class: "data" });

const GROUPED: Graph = {
  nodes: [
    node("start"),
    node("g", { group: true }),
    node("g/a", { parent: "g" }),
    node("g/h", { parent: "g", group: true }),
    node("g/h/b", { parent: "g/h" }),
    node("end"),
  ],
  edges: [edge("start", "g/a"), edge("g/a", "g/h/b"), edge("g/h/b", "end"), edge("start", "end")],
};

const overlap = (a: Box, b: Box) =>
  a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;

describe("folding", () => {
  it("shows everything unfolded", () => {
    const shown = shownGraph(GROUPED, new Set());
    expect(shown.nodes).toHaveLength(6);
    expect(shown.edges).toHaveLength(4);
  });

  it("lets the outermost folded group stand for what is inside of it", () => {
    const shown = shownGraph(GROUPED, new Set(["g", "g/h"]));
    expect(shown.nodes.map((n) => n.id)).toEqual(["start", "g", "end"]);
    expect(shown.edges.map((e) => `${e.from}>${e.to}`)).toEqual(["start>g", "g>end", "start>end"]);
  });

  it("drops edges to nodes that do not exist", () => {
    const shown = shownGraph({ nodes: [node("a")], edges: [edge("a", "ghost")] }, new Set());
    expect(shown.edges).toEqual([]);
  });

  it("has the same shape whatever the states are", () => {
    const later = {
      ...GROUPED,
      nodes: GROUPED.nodes.map((n) => ({ ...n, state: "running", counts: { running: 1 } })),
    };
    expect(shapeOf(shownGraph(later, new Set()))).toBe(shapeOf(shownGraph(GROUPED, new Set())));
  });
});

describe("quick layout", () => {
  it("lays left to right, and children inside of their group", () => {
    const { boxes } = quickLayout(shownGraph(GROUPED, new Set()));
    const box = (id: string) => boxes.get(id) as Box;
    expect(boxes.size).toBe(6);
    expect(box("start").x).toBeLessThan(box("g").x);
    expect(box("g/a").x).toBeLessThan(box("g/h/b").x);
    expect(box("g/h/b").x).toBeLessThan(box("end").x);
    for (const [inner, outer] of [
      ["g/a", "g"],
      ["g/h", "g"],
      ["g/h/b", "g/h"],
    ] as const) {
      const [a, b] = [box(inner), box(outer)];
      expect(a.x).toBeGreaterThan(b.x);
      expect(a.x + a.width).toBeLessThan(b.x + b.width);
      expect(a.y).toBeGreaterThan(b.y);
      expect(a.y + a.height).toBeLessThan(b.y + b.height);
    }
  });

  it("lays 2,000 nodes without overlaps in less than half a second", () => {
    const nodes = Array.from({ length: 2000 }, (_, i) => node(`n${i}`));
    const edges = nodes.flatMap((_, i) =>
      i < 50 ? [] : [edge(`n${i - 50 + ((i * 7) % 40)}`, `n${i}`), edge(`n${i - 37}`, `n${i}`)],
    );
    const began = performance.now();
    const { boxes } = quickLayout({ nodes, edges });
    expect(performance.now() - began).toBeLessThan(500);
    const list = [...boxes.values()];
    for (let i = 0; i < 300; i += 1) {
      for (let j = i + 1; j < 300; j += 1) {
        expect(overlap(list[i] as Box, list[j] as Box)).toBe(false);
      }
    }
    for (const e of edges) {
      expect((boxes.get(e.from) as Box).x).toBeLessThan((boxes.get(e.to) as Box).x);
    }
  });

  it("ends on a cycle", () => {
    const { boxes } = quickLayout({
      nodes: [node("a"), node("b"), node("c")],
      edges: [edge("a", "b"), edge("b", "a"), edge("b", "c")],
    });
    expect(boxes.size).toBe(3);
  });
});

describe("the cone of a node", () => {
  it("is all before it and all after it, and no sibling", () => {
    const edges = [edge("a", "b"), edge("b", "c"), edge("a", "x"), edge("c", "d"), edge("y", "d")];
    expect([...coneOf("b", edges)].sort()).toEqual(["a", "b", "c", "d"]);
  });
});
