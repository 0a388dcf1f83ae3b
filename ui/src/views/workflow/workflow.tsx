import { Link, useParams } from "@tanstack/react-router";
import { lazy, Suspense, useCallback, useMemo } from "react";
import { StartRunDialog } from "../../act/start-run";
import { enc } from "../../api/client";
import { useApi } from "../../api/hooks";
import type { Graph, WorkflowDetail } from "../../api/types";
import { Dialect, useWords } from "../../dialects/context";
import { upper } from "../../dialects/words";
import { plural } from "../../model/duration";
import { useAddress } from "../../parts/address";
import { Await, Empty, Loading } from "../../parts/basics";
import { Mark, State } from "../../parts/mark";
import { Tabs } from "../../parts/tabs";
import { Ago } from "../../parts/time";
import { useTitle } from "../../shell/crumbs";
import { useKeys } from "../../shell/keys";
import { useWorkflowZone } from "../../shell/prefs";
import { RunList } from "../runs";
import { TriggerTable } from "../trigger-table";
import { PauseSwitch } from "../workflows";
import { Calendar } from "./calendar";
import { CodeTab } from "./code-tab";
import { Durations } from "./durations";
import { WorkflowAssets } from "./workflow-assets";
import { WorkflowGrid } from "./workflow-grid";

const GraphView = lazy(() => import("../../graph/graph-view"));
const TaskPanel = lazy(() => import("../task/task-panel"));

export function WorkflowView() {
  const { name } = useParams({ strict: false }) as { name: string };
  const workflow = useApi<WorkflowDetail>(`/workflows/${enc(name)}`, {}, { keep: false });
  useTitle(name, [
    { key: "workflows", node: <Link to="/workflows">Workflows</Link> },
    { key: name, node: <span dir="auto">{name}</span> },
  ]);
  const data = workflow.data;
  return (
    <div className="view fixed">
      <Await of={workflow} what="the workflow">
        {() =>
          data ? (
            <Dialect of={data.dialect}>
              <WorkflowBody key={name} workflow={data} />
            </Dialect>
          ) : null
        }
      </Await>
    </div>
  );
}

function WorkflowBody({ workflow }: { workflow: WorkflowDetail }) {
  const [search, set] = useAddress();
  useWorkflowZone(workflow.timezone);
  const tab = search.tab ?? (workflow.error && workflow.last_runs.length === 0 ? "code" : "grid");
  const starting = search.start === "1";
  const start = () => {
    if (workflow.version) set({ start: "1" }, true);
  };
  const words = useWords();
  useKeys("Workflow", [
    { keys: "r", word: `${words.start} it`, run: start },
    { keys: "1", word: "Grid", run: () => set({ tab: "grid" }) },
    { keys: "2", word: "Graph", run: () => set({ tab: "graph" }) },
    { keys: "3", word: upper(words.runs), run: () => set({ tab: "runs" }) },
    { keys: "4", word: "Code", run: () => set({ tab: "code" }) },
  ]);
  const closePanel = useCallback(
    () =>
      set({
        task: undefined,
        pane: undefined,
        attempt: undefined,
        find: undefined,
        level: undefined,
      }),
    [set],
  );
  return (
    <>
      <div className="page-head">
        <div className="row wrap">
          <PauseSwitch workflow={workflow} />
          <h1 className="cut" dir="auto">
            {workflow.name}
          </h1>
          {workflow.paused ? <State state="paused" /> : null}
          <span className="chip">{workflow.dialect}</span>
          {workflow.tags.slice(0, 6).map((tag) => (
            <Link key={tag} to="/workflows" search={{ tag } as never} className="chip">
              {tag}
            </Link>
          ))}
          <span className="grow" />
          {workflow.version ? (
            <Link
              to="/backfills"
              search={{ new: "1", workflow: workflow.name } as never}
              className="button"
            >
              Backfill…
            </Link>
          ) : null}
          <button
            type="button"
            className="button primary"
            disabled={!workflow.version}
            title={workflow.version ? undefined : "It has no version that could run yet"}
            onClick={start}
          >
            {words.start}…
          </button>
        </div>
        <div className="row wrap quiet" style={{ gap: "2px 16px" }}>
          {workflow.schedule ? (
            <span className="mono">{workflow.schedule}</span>
          ) : (
            <span>no schedule</span>
          )}
          {workflow.next_run_at && !workflow.paused ? (
            <span>
              next <Ago at={workflow.next_run_at} />
            </span>
          ) : null}
          <span>{plural(workflow.task_count, "task")}</span>
          {workflow.max_active_runs ? (
            <span>
              at most {workflow.max_active_runs} {words.runs} at once
            </span>
          ) : null}
          {workflow.version ? (
            <span>
              version <span className="mono">{workflow.version.slice(0, 7)}</span>,{" "}
              <Ago at={workflow.updated_at} />
            </span>
          ) : null}
        </div>
        {workflow.description ? <p className="cut">{workflow.description}</p> : null}
        {workflow.error ? (
          <div className="problem">
            <Mark state="failed" />
            <div className="grow">
              <span className="strong">
                Its newest definition does not parse
                {workflow.error.line ? ` (line ${workflow.error.line})` : ""}:
              </span>{" "}
              {workflow.error.message}.{" "}
              {workflow.version
                ? `Version ${workflow.version.slice(0, 7)} stays in force.`
                : "It has no version that could run yet."}
            </div>
            <Link to="." search={{ tab: "code" } as never} className="button">
              Show it
            </Link>
          </div>
        ) : null}
      </div>
      <Tabs
        param="tab"
        value={tab}
        clears={["q", "state", "sort", "version", "against"]}
        items={[
          ["grid", "Grid"],
          ["graph", "Graph"],
          ["runs", upper(words.runs)],
          ["calendar", "Calendar"],
          ["triggers", "Triggers"],
          ["durations", "Durations"],
          ["assets", "Assets"],
          ["code", "Code"],
        ]}
      />
      <div className={`tab-body${["grid", "graph"].includes(tab) ? " flush" : ""}`}>
        {tab === "grid" ? <WorkflowGrid workflow={workflow} onStart={start} /> : null}
        {tab === "graph" ? <WorkflowGraph workflow={workflow} /> : null}
        {tab === "runs" ? <RunList workflow={workflow.name} /> : null}
        {tab === "calendar" ? <Calendar workflow={workflow} /> : null}
        {tab === "triggers" ? <TriggerTable query={{ workflow: workflow.name }} /> : null}
        {tab === "durations" ? <Durations workflow={workflow} /> : null}
        {tab === "assets" ? <WorkflowAssets workflow={workflow} /> : null}
        {tab === "code" ? <CodeTab workflow={workflow} /> : null}
      </div>
      <Suspense fallback={null}>
        {search.task ? <TaskPanel id={search.task} onClose={closePanel} /> : null}
      </Suspense>
      {starting ? (
        <StartRunDialog workflow={workflow.name} onClose={() => set({ start: undefined })} />
      ) : null}
    </>
  );
}

function WorkflowGraph({ workflow }: { workflow: WorkflowDetail }) {
  const [search, set] = useAddress();
  const graph = useApi<Graph>(`/workflows/${enc(workflow.name)}/graph`);
  const chosen = search.node ?? null;
  const choose = useCallback(
    (node: { id: string }) => set({ node: node.id === chosen ? undefined : node.id }),
    [set, chosen],
  );
  const shown = useMemo(() => graph.data, [graph.data]);
  return (
    <Await of={graph} what="the graph">
      {() =>
        shown && shown.nodes.length > 0 ? (
          <Suspense fallback={<Loading what="the graph" />}>
            <GraphView
              graph={shown}
              chosen={chosen}
              onChoose={choose}
              label={`Graph of ${workflow.name}: ${shown.nodes.length} nodes`}
            />
          </Suspense>
        ) : (
          <Empty title="It has no task">
            <p>An open workflow gets its tasks while it runs, from the program that drives it.</p>
          </Empty>
        )
      }
    </Await>
  );
}
