import "@xyflow/react/dist/base.css";
import {
  Background,
  BackgroundVariant,
  Controls,
  type Edge,
  Handle,
  MiniMap,
  type Node,
  type NodeProps,
  Position,
  ReactFlow,
  ReactFlowProvider,
  type Viewport,
} from "@xyflow/react";
import { ChevronDown, ChevronRight, Layers } from "lucide-react";
import { createContext, memo, useContext, useEffect, useMemo, useRef, useState } from "react";
import type { Graph, GraphNode } from "../api/types";
import { formatCount } from "../model/duration";
import { isFinished, lookOf, stateInfo, totalOf, wordOf } from "../model/states";
import { CountsBar, Mark } from "../parts/mark";
import { Took } from "../parts/time";
import { useDark } from "../shell/prefs";
import { coneOf, ELK_MAX_NODES, type Layout, quickLayout, shapeOf, shownGraph } from "./layout";

interface Acts {
  chosen: string | null;
  cone: Set<string> | null;
  folded: ReadonlySet<string>;
  choose: (node: GraphNode) => void;
  fold: (id: string) => void;
}

const ActsContext = createContext<Acts | null>(null);

type TaskNode = Node<{ node: GraphNode }, "task" | "panel">;

const TaskBox = memo(function TaskBox({ data }: NodeProps<TaskNode>) {
  const acts = useContext(ActsContext);
  const { node } = data;
  const many = node.mapped || (node.group && totalOf(node.counts) > 0);
  const dim = acts?.cone ? !acts.cone.has(node.id) : false;
  return (
    <>
      <Handle type="target" position={Position.Left} isConnectable={false} />
      <button
        type="button"
        className={`node${node.state ? ` look-${lookOf(node.state)}` : ""}${acts?.chosen === node.id ? " chosen" : ""}${dim ? " dim" : ""}`}
        onClick={() => acts?.choose(node)}
        title={node.message ?? node.condition ?? node.id}
      >
        <span className="row" style={{ gap: 6 }}>
          {node.state ? <Mark state={node.state} title={wordOf(node.state)} /> : null}
          <span className="cut grow strong" dir="auto">
            {node.name}
          </span>
          {node.mapped ? (
            <span className="quiet row" style={{ gap: 3 }}>
              <Layers size={11} aria-hidden /> {formatCount(node.total)}
            </span>
          ) : null}
        </span>
        <span className="node-foot">
          {many ? (
            <CountsBar counts={node.counts} />
          ) : (
            <>
              <span className="quiet cut grow">{node.kind}</span>
              {node.started_at ? (
                <span className="quiet">
                  <Took
                    start={node.started_at}
                    end={node.ended_at}
                    running={!node.state || !isFinished(node.state)}
                  />
                </span>
              ) : null}
            </>
          )}
        </span>
      </button>
      {node.group ? (
        <button
          type="button"
          className="node-fold nodrag"
          aria-label={`Unfold ${node.name}`}
          title="Unfold"
          onClick={() => acts?.fold(node.id)}
        >
          <ChevronRight size={13} />
        </button>
      ) : null}
      <Handle type="source" position={Position.Right} isConnectable={false} />
    </>
  );
});

const GroupBox = memo(function GroupBox({ data }: NodeProps<TaskNode>) {
  const acts = useContext(ActsContext);
  const { node } = data;
  return (
    <div className={`group-box${acts?.chosen === node.id ? " chosen" : ""}`}>
      <Handle type="target" position={Position.Left} isConnectable={false} />
      <div className="group-head">
        <button
          type="button"
          className="button plain square nodrag"
          style={{ height: 24, width: 24 }}
          aria-label={`Fold ${node.name}`}
          title="Fold"
          onClick={() => acts?.fold(node.id)}
        >
          <ChevronDown size={13} />
        </button>
        {node.state ? <Mark state={node.state} title={wordOf(node.state)} /> : null}
        <button type="button" className="group-name cut nodrag" onClick={() => acts?.choose(node)}>
          {node.name}
        </button>
        {totalOf(node.counts) > 0 ? <CountsBar counts={node.counts} width={70} /> : null}
      </div>
      <Handle type="source" position={Position.Right} isConnectable={false} />
    </div>
  );
});

const NODE_TYPES = { task: TaskBox, panel: GroupBox };

export interface GraphViewProps {
  graph: Graph;
  chosen: string | null;
  onChoose: (node: GraphNode) => void;
  label: string;
}

const handle = (type: "source" | "target", position: Position, x: number, y: number) => ({
  type,
  position,
  x,
  y,
  width: 1,
  height: 1,
});

const READABLE = 0.62;

/** All of the graph where it can be read whole; else, readable, what needs the eye or the start. */
function firstViewport(nodes: TaskNode[], width: number, height: number): Viewport {
  let [right, bottom] = [1, 1];
  for (const node of nodes) {
    right = Math.max(right, node.position.x + (node.width ?? 0));
    bottom = Math.max(bottom, node.position.y + (node.height ?? 0));
  }
  const centred = (x: number, y: number, zoom: number): Viewport => ({
    x: width / 2 - x * zoom,
    y: height / 2 - y * zoom,
    zoom,
  });
  const whole = Math.min((width * 0.94) / right, (height * 0.9) / bottom);
  if (whole >= READABLE) return centred(right / 2, bottom / 2, Math.min(1, whole));
  const concern = (node: TaskNode) =>
    node.type === "panel" || !node.data.node.state ? 0 : stateInfo(node.data.node.state).concern;
  const worst = nodes.reduce<TaskNode | undefined>(
    (best, node) => (concern(node) > (best ? concern(best) : 69) ? node : best),
    undefined,
  );
  const zoom = Math.max(READABLE, Math.min(0.9, (height * 0.9) / bottom));
  const left = width / 2 / zoom - 30;
  const most = Math.max(left, right - width / 2 / zoom + 30);
  const x = worst ? worst.position.x + (worst.width ?? 0) / 2 : left;
  const y = worst ? worst.position.y : height / 2 / zoom - 30;
  return centred(Math.min(most, Math.max(left, x)), bottom * zoom < height ? bottom / 2 : y, zoom);
}

/** Groups start folded where the graph would be too much to read at once. */
function foldedAtFirst(graph: Graph): Set<string> {
  if (graph.nodes.length <= 150) return new Set();
  return new Set(graph.nodes.filter((node) => node.group).map((node) => node.id));
}

export default function GraphView({ graph, chosen, onChoose, label }: GraphViewProps) {
  const [folded, setFolded] = useState<ReadonlySet<string>>(() => foldedAtFirst(graph));
  const shown = useMemo(() => shownGraph(graph, folded), [graph, folded]);
  const shape = shapeOf(shown);
  const [layout, setLayout] = useState<{ shape: string; layout: Layout } | null>(null);
  const dark = useDark();
  const host = useRef<HTMLElement>(null);
  const shownNow = useRef(shown);
  shownNow.current = shown;

  useEffect(() => {
    let stale = false;
    const current = shownNow.current;
    if (current.nodes.length > ELK_MAX_NODES) {
      setLayout({ shape, layout: quickLayout(current) });
      return;
    }
    void import("./elk")
      .then(({ elkLayout }) => elkLayout(current))
      // A graph that the worker refuses (a cycle through groups) is still shown.
      .catch(() => quickLayout(current))
      .then((made) => {
        if (!stale) setLayout({ shape, layout: made });
      });
    return () => {
      stale = true;
    };
  }, [shape]);

  const cone = useMemo(
    () => (chosen && shown.nodes.some((n) => n.id === chosen) ? coneOf(chosen, shown.edges) : null),
    [chosen, shown],
  );
  const boxes = layout?.layout.boxes;
  const open = useMemo(() => {
    const parents = new Set(shown.nodes.map((node) => node.parent));
    return new Set(shown.nodes.filter((n) => parents.has(n.id)).map((n) => n.id));
  }, [shown]);

  const nodes = useMemo<TaskNode[]>(() => {
    if (!boxes) return [];
    const out: TaskNode[] = [];
    for (const node of shown.nodes) {
      const box = boxes.get(node.id);
      if (!box) continue;
      out.push({
        id: node.id,
        type: open.has(node.id) ? "panel" : "task",
        position: { x: box.x, y: box.y },
        width: box.width,
        height: box.height,
        measured: { width: box.width, height: box.height },
        // Known places of the handles: without them every node is drawn once, seen or not.
        handles: [
          handle("target", Position.Left, 0, box.height / 2),
          handle("source", Position.Right, box.width, box.height / 2),
        ],
        data: { node },
        draggable: false,
        selectable: false,
        focusable: false,
        zIndex: open.has(node.id) ? 0 : 2,
      });
    }
    return out;
  }, [shown, boxes, open]);

  const edges = useMemo<Edge[]>(
    () =>
      shown.edges.map((edge) => {
        const lit = cone ? cone.has(edge.from) && cone.has(edge.to) : false;
        return {
          id: `${edge.from}\u0000${edge.to}`,
          source: edge.from,
          target: edge.to,
          className: lit ? "lit" : cone ? "dim" : "",
          focusable: false,
          zIndex: 1,
        };
      }),
    [shown, cone],
  );

  // Once, when the first layout is there: later ones must not move what is looked at.
  const first = useRef<{ viewport: Viewport; width: number; height: number } | null>(null);
  if (first.current === null && nodes.length > 0) {
    const width = host.current?.clientWidth || 800;
    const height = host.current?.clientHeight || 500;
    first.current = { viewport: firstViewport(nodes, width, height), width, height };
  }

  const acts = useMemo<Acts>(
    () => ({
      chosen,
      cone,
      folded,
      choose: onChoose,
      fold: (id) =>
        setFolded((before) => {
          const next = new Set(before);
          if (!next.delete(id)) next.add(id);
          return next;
        }),
    }),
    [chosen, cone, folded, onChoose],
  );
  const groups = graph.nodes.filter((node) => node.group);

  return (
    <ActsContext.Provider value={acts}>
      <section className="graph" aria-label={label} ref={host}>
        {layout === null ? (
          <div className="loading" role="status">
            Laying out {formatCount(shown.nodes.length)} nodes…
          </div>
        ) : null}
        {first.current ? (
          <ReactFlowProvider
            initialWidth={first.current.width}
            initialHeight={first.current.height}
          >
            <ReactFlow
              defaultViewport={first.current.viewport}
              nodes={nodes}
              edges={edges}
              nodeTypes={NODE_TYPES}
              colorMode={dark ? "dark" : "light"}
              minZoom={0.05}
              maxZoom={1.6}
              nodesDraggable={false}
              nodesConnectable={false}
              nodesFocusable={false}
              edgesFocusable={false}
              elementsSelectable={false}
              onlyRenderVisibleElements={nodes.length > 200}
              proOptions={{ hideAttribution: true }}
              zoomOnDoubleClick={false}
              panOnScroll={false}
            >
              <Background variant={BackgroundVariant.Dots} gap={22} size={1} />
              <Controls showInteractive={false} position="bottom-left" />
              {nodes.length >= 200 ? (
                <MiniMap
                  pannable
                  zoomable
                  nodeColor={(node) => {
                    const { state } = (node as TaskNode).data.node;
                    return `var(--${state ? lookOf(state) : "pending"})`;
                  }}
                />
              ) : null}
            </ReactFlow>
          </ReactFlowProvider>
        ) : null}
        {groups.length > 0 ? (
          <div className="graph-tools">
            <button type="button" className="button" onClick={() => setFolded(new Set())}>
              Unfold all
            </button>
            <button
              type="button"
              className="button"
              onClick={() => setFolded(new Set(groups.map((group) => group.id)))}
            >
              Fold all
            </button>
          </div>
        ) : null}
      </section>
    </ActsContext.Provider>
  );
}
