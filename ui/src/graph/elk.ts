// The worker's layout: fewer crossings than the quick one, groups as nested boxes.

import type { ElkNode } from "elkjs/lib/elk-api.js";
import ELK from "elkjs/lib/elk-api.js";
import ElkWorker from "elkjs/lib/elk-worker.min.js?worker";
import { type Box, type Layout, NODE_HEIGHT, NODE_WIDTH, type Shown } from "./layout";

const elk = new ELK({ workerFactory: () => new ElkWorker() });

const OPTIONS = {
  "elk.algorithm": "layered",
  "elk.direction": "RIGHT",
  "elk.hierarchyHandling": "INCLUDE_CHILDREN",
  "elk.layered.spacing.nodeNodeBetweenLayers": "52",
  "elk.spacing.nodeNode": "14",
  "elk.layered.considerModelOrder.strategy": "NODES_AND_EDGES",
  "elk.layered.nodePlacement.strategy": "BRANDES_KOEPF",
  "elk.layered.nodePlacement.bk.fixedAlignment": "BALANCED",
};

export async function elkLayout(shown: Shown): Promise<Layout> {
  const ids = new Set(shown.nodes.map((node) => node.id));
  const made = new Map<string, ElkNode>();
  const parents = new Set(shown.nodes.map((node) => node.parent));
  for (const node of shown.nodes) {
    made.set(
      node.id,
      parents.has(node.id)
        ? {
            id: node.id,
            children: [],
            layoutOptions: { "elk.padding": "[top=40,left=14,bottom=14,right=14]" },
          }
        : { id: node.id, width: NODE_WIDTH, height: NODE_HEIGHT },
    );
  }
  const top: ElkNode[] = [];
  for (const node of shown.nodes) {
    const elkNode = made.get(node.id);
    if (!elkNode) continue;
    const parent = node.parent !== null && ids.has(node.parent) ? made.get(node.parent) : undefined;
    if (parent?.children) parent.children.push(elkNode);
    else top.push(elkNode);
  }
  const wanted: ElkNode = {
    id: "\u0000root",
    layoutOptions: OPTIONS,
    children: top,
    edges: shown.edges.map((edge, i) => ({
      id: `\u0000e${i}`,
      sources: [edge.from],
      targets: [edge.to],
    })),
  };
  const root: ElkNode = await elk.layout(wanted);
  const boxes = new Map<string, Box>();
  const walk = (nodes: ElkNode[], dx: number, dy: number) => {
    for (const node of nodes) {
      const box = {
        x: (node.x ?? 0) + dx,
        y: (node.y ?? 0) + dy,
        width: node.width ?? NODE_WIDTH,
        height: node.height ?? NODE_HEIGHT,
      };
      boxes.set(node.id, box);
      if (node.children) walk(node.children, box.x, box.y);
    }
  };
  walk(root.children ?? [], 0, 0);
  return { boxes, width: root.width ?? 0, height: root.height ?? 0 };
}
