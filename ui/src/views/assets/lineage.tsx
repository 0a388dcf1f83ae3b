import { useMemo } from "react";
import type { AssetGraph, Graph } from "../../api/types";
import GraphView from "../../graph/graph-view";
import { plural } from "../../model/duration";

/** Assets as the graph's nodes: what is made from what, across workflows. */
export function lineageGraph(graph: AssetGraph): Graph {
  const joined = new Set(graph.edges.flatMap((edge) => [edge.from, edge.to]));
  // What stands alone has no lineage to show, unless nothing else is there.
  const shown = joined.size === 0 ? graph.nodes : graph.nodes.filter((a) => joined.has(a.key));
  return {
    nodes: shown.map((asset) => ({
      id: asset.key,
      name: asset.key.split("/").slice(-2).join("/"),
      kind:
        [
          asset.freshness.status === "none" ? null : asset.freshness.status,
          asset.checks.failed > 0
            ? `${asset.checks.failed} checks fail`
            : asset.checks.passed > 0
              ? "checks hold"
              : null,
        ]
          .filter(Boolean)
          .join(", ") ||
        (asset.producers[0] ?? "external"),
      parent: null,
      group: false,
      mapped: false,
      state: asset.health,
      counts: {},
      total: 1,
      task: null,
      attempt: 0,
      started_at: null,
      ended_at: null,
      message: asset.key,
      gate: null,
      condition: null,
    })),
    edges: graph.edges.map((edge) => ({ from: edge.from, to: edge.to, class: "data" })),
  };
}

export default function Lineage({
  graph,
  focus,
  onOpen,
}: {
  graph: AssetGraph;
  focus: string | null;
  onOpen: (key: string) => void;
}) {
  const shown = useMemo(() => lineageGraph(graph), [graph]);
  return (
    <div className="card fill" style={{ display: "flex", flexDirection: "column" }}>
      <GraphView
        graph={shown}
        chosen={focus}
        onChoose={(node) => onOpen(node.id)}
        label={`Lineage of ${graph.nodes.length} assets`}
      />
      {shown.nodes.length < graph.nodes.length ? (
        <div className="legend quiet small">
          {plural(graph.nodes.length - shown.nodes.length, "asset")} without neighbours left out:
          the list has them.
        </div>
      ) : null}
      {graph.truncated ? (
        <div className="legend quiet small">
          Only the first {graph.nodes.length} are drawn: filter by key.
        </div>
      ) : null}
    </div>
  );
}
