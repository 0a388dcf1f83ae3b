// Where the nodes of a graph lie, left to right. Small graphs go to elk in a worker; large ones,
// and those of which nothing better is known yet, get a plain layered layout at once.

import type { Graph, GraphNode } from "../api/types";

export interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
}

export interface Layout {
  boxes: Map<string, Box>;
  width: number;
  height: number;
}

export const NODE_WIDTH = 190;
export const NODE_HEIGHT = 44;
const GAP_X = 52;
const GAP_Y = 14;
const PAD = 14;
const HEAD = 26;
/** Above this the worker's layout takes longer than a person waits. */
export const ELK_MAX_NODES = 400;

/** What is on the screen: children of folded groups are left out, their edges go to the group. */
export interface Shown {
  nodes: GraphNode[];
  edges: { from: string; to: string; class: string }[];
}

export function shownGraph(graph: Graph, folded: ReadonlySet<string>): Shown {
  const byId = new Map(graph.nodes.map((node) => [node.id, node]));
  const standIn = new Map<string, string>();
  const find = (id: string): string => {
    const known = standIn.get(id);
    if (known !== undefined) return known;
    let result = id;
    // The outermost folded ancestor stands for the node.
    const seen = new Set<string>([id]);
    let at = byId.get(id)?.parent ?? null;
    while (at !== null && !seen.has(at)) {
      seen.add(at);
      if (folded.has(at)) result = at;
      at = byId.get(at)?.parent ?? null;
    }
    standIn.set(id, result);
    return result;
  };
  const nodes = graph.nodes.filter((node) => find(node.id) === node.id);
  const seen = new Set<string>();
  const edges: Shown["edges"] = [];
  for (const edge of graph.edges) {
    if (!byId.has(edge.from) || !byId.has(edge.to)) continue;
    const [from, to] = [find(edge.from), find(edge.to)];
    const key = `${from}\u0000${to}`;
    if (from === to || seen.has(key)) continue;
    seen.add(key);
    edges.push({ from, to, class: edge.class });
  }
  return { nodes, edges };
}

/** Identifies a layout: states may change, the shape does not, so nothing jumps. */
export function shapeOf(shown: Shown): string {
  return `${shown.nodes.map((n) => n.id).join("\u0001")}\u0002${shown.edges
    .map((e) => `${e.from}\u0001${e.to}`)
    .join("\u0003")}`;
}

/** Longest-path layers, a few sweeps to untangle, one column per layer. Groups are laid out from
 * the inside out, each as one node of the level above. Works on cycles (back edges are ignored). */
export function quickLayout(shown: Shown): Layout {
  const children = new Map<string | null, GraphNode[]>();
  const ids = new Set(shown.nodes.map((n) => n.id));
  const parentOf = new Map<string, string | null>();
  for (const node of shown.nodes) {
    const parent = node.parent !== null && ids.has(node.parent) ? node.parent : null;
    parentOf.set(node.id, parent);
    const list = children.get(parent);
    if (list) list.push(node);
    else children.set(parent, [node]);
  }
  const chain = (id: string): string[] => {
    const out = [id];
    let at = parentOf.get(id) ?? null;
    while (at !== null && out.length < 64) {
      out.push(at);
      at = parentOf.get(at) ?? null;
    }
    return out;
  };
  // Each edge counts at the level where its ends part.
  const levelEdges = new Map<string | null, [string, string][]>();
  for (const edge of shown.edges) {
    const a = chain(edge.from);
    const b = chain(edge.to);
    let [i, j] = [a.length - 1, b.length - 1];
    while (i > 0 && j > 0 && a[i] === b[j]) {
      i -= 1;
      j -= 1;
    }
    const [from, to] = [a[i], b[j]];
    if (from === undefined || to === undefined || from === to) continue;
    const level = parentOf.get(from) ?? null;
    const list = levelEdges.get(level);
    if (list) list.push([from, to]);
    else levelEdges.set(level, [[from, to]]);
  }
  const boxes = new Map<string, Box>();
  const place = (level: string | null): { width: number; height: number } => {
    const nodes = children.get(level) ?? [];
    const sizes = new Map<string, { width: number; height: number }>();
    for (const node of nodes) {
      if (children.has(node.id)) {
        const inner = place(node.id);
        sizes.set(node.id, {
          width: Math.max(NODE_WIDTH, inner.width + 2 * PAD),
          height: inner.height + 2 * PAD + HEAD,
        });
      } else {
        sizes.set(node.id, { width: NODE_WIDTH, height: NODE_HEIGHT });
      }
    }
    return columns(
      nodes.map((n) => n.id),
      sizes,
      levelEdges.get(level) ?? [],
      boxes,
    );
  };
  const { width, height } = place(null);
  // Children were placed from their group's inner corner: make all absolute, outermost first.
  const absolute = new Map<string, Box>();
  const settle = (level: string | null, dx: number, dy: number) => {
    for (const node of children.get(level) ?? []) {
      const box = boxes.get(node.id);
      if (!box) continue;
      const moved = { ...box, x: box.x + dx, y: box.y + dy };
      absolute.set(node.id, moved);
      if (children.has(node.id)) settle(node.id, moved.x + PAD, moved.y + PAD + HEAD);
    }
  };
  settle(null, 0, 0);
  return { boxes: absolute, width, height };
}

function columns(
  ids: string[],
  sizes: Map<string, { width: number; height: number }>,
  edges: [string, string][],
  boxes: Map<string, Box>,
): { width: number; height: number } {
  const out = new Map<string, string[]>();
  const into = new Map<string, string[]>();
  const waits = new Map<string, number>(ids.map((id) => [id, 0]));
  for (const [from, to] of edges) {
    out.set(from, [...(out.get(from) ?? []), to]);
    into.set(to, [...(into.get(to) ?? []), from]);
    waits.set(to, (waits.get(to) ?? 0) + 1);
  }
  const layer = new Map<string, number>();
  const queue = ids.filter((id) => waits.get(id) === 0);
  for (const id of queue) layer.set(id, 0);
  for (let head = 0; head < queue.length; head += 1) {
    const id = queue[head] as string;
    for (const next of out.get(id) ?? []) {
      layer.set(next, Math.max(layer.get(next) ?? 0, (layer.get(id) ?? 0) + 1));
      const left = (waits.get(next) ?? 0) - 1;
      waits.set(next, left);
      if (left === 0) queue.push(next);
    }
  }
  const layers: string[][] = [];
  for (const id of ids) {
    const at = layer.get(id) ?? 0;
    while (layers.length <= at) layers.push([]);
    layers[at]?.push(id);
  }
  const order = new Map<string, number>();
  const number = () => {
    for (const list of layers)
      for (let i = 0; i < list.length; i += 1) order.set(list[i] as string, i);
  };
  number();
  const mean = (id: string, near: Map<string, string[]>): number => {
    const list = near.get(id);
    if (!list || list.length === 0) return order.get(id) ?? 0;
    let sum = 0;
    for (const other of list) sum += order.get(other) ?? 0;
    return sum / list.length;
  };
  for (let sweep = 0; sweep < 6; sweep += 1) {
    const near = sweep % 2 === 0 ? into : out;
    for (const list of sweep % 2 === 0 ? layers : [...layers].reverse()) {
      const weight = new Map(list.map((id) => [id, mean(id, near)]));
      list.sort((a, b) => (weight.get(a) ?? 0) - (weight.get(b) ?? 0));
      for (let i = 0; i < list.length; i += 1) order.set(list[i] as string, i);
    }
  }
  const heights = layers.map((list) =>
    list.reduce((sum, id) => sum + (sizes.get(id)?.height ?? NODE_HEIGHT) + GAP_Y, -GAP_Y),
  );
  const tall = Math.max(0, ...heights);
  let x = 0;
  layers.forEach((list, i) => {
    const wide = list.reduce((most, id) => Math.max(most, sizes.get(id)?.width ?? NODE_WIDTH), 0);
    let y = (tall - (heights[i] ?? 0)) / 2;
    for (const id of list) {
      const size = sizes.get(id) ?? { width: NODE_WIDTH, height: NODE_HEIGHT };
      boxes.set(id, { x, y, ...size });
      y += size.height + GAP_Y;
    }
    x += wide + GAP_X;
  });
  return { width: Math.max(0, x - GAP_X), height: tall };
}

/** All that a node depends on and all that depends on it. */
export function coneOf(id: string, edges: { from: string; to: string }[]): Set<string> {
  const cone = new Set([id]);
  const walk = (step: (edge: { from: string; to: string }) => [string, string]) => {
    const near = new Map<string, string[]>();
    for (const edge of edges) {
      const [at, next] = step(edge);
      const list = near.get(at);
      if (list) list.push(next);
      else near.set(at, [next]);
    }
    const queue = [id];
    const seen = new Set(queue);
    for (const at of queue) {
      for (const next of near.get(at) ?? []) {
        if (!seen.has(next)) {
          seen.add(next);
          queue.push(next);
        }
      }
    }
    for (const each of seen) cone.add(each);
  };
  walk((edge) => [edge.from, edge.to]);
  walk((edge) => [edge.to, edge.from]);
  return cone;
}
