import { Link, useNavigate, useParams } from "@tanstack/react-router";
import { lazy, Suspense, useCallback, useState } from "react";
import { CancelRunDialog, RunsBulkDialog } from "../../act/runs";
import { StartRunDialog } from "../../act/start-run";
import { TaskActionDialog, type TaskActionKind, type TaskTarget } from "../../act/tasks";
import { ApiError, enc, request } from "../../api/client";
import { useAction, useApi } from "../../api/hooks";
import type { Graph, GraphNode, Run, WorkflowDetail } from "../../api/types";
import { Dialect, useStateWord, useWords } from "../../dialects/context";
import { upper } from "../../dialects/words";
import { formatCount } from "../../model/duration";
import { paramsOf } from "../../model/params";
import { countsText, isFinished, orderedCounts } from "../../model/states";
import { useAddress } from "../../parts/address";
import { Await, Empty, Loading, Menu, runLabel } from "../../parts/basics";
import { CountsBar, Mark, State } from "../../parts/mark";
import { Tabs } from "../../parts/tabs";
import { Ago, Exact, Interval, Took } from "../../parts/time";
import { useTitle } from "../../shell/crumbs";
import { useKeys } from "../../shell/keys";
import { useWorkflowZone } from "../../shell/prefs";
import { Artifacts } from "../artifacts";
import { EventList } from "../event-list";
import { NodePanel } from "./node-panel";
import { RunDetails } from "./run-details";
import { RunTasks } from "./run-tasks";
import { RunTimeline } from "./run-timeline";
import { RunWorkersTab } from "./run-workers";
import { useWatchedRun } from "./watch";

const GraphView = lazy(() => import("../../graph/graph-view"));
const TaskPanel = lazy(() => import("../task/task-panel"));

export function RunView() {
  const { id } = useParams({ strict: false }) as { id: string };
  const run = useApi<Run>(`/runs/${id}`, {}, { keep: false });
  useWatchedRun(id);
  const data = run.data;
  useTitle(data ? `${data.workflow} ${runLabel(id)}` : "Run", [
    { key: "runs", node: <Link to="/runs">Runs</Link> },
    ...(data
      ? [
          {
            key: data.workflow,
            node: (
              <Link to="/workflows/$name" params={{ name: data.workflow }} dir="auto">
                {data.workflow}
              </Link>
            ),
          },
        ]
      : []),
    { key: id, node: <span className="mono">{runLabel(id)}</span> },
  ]);
  const gone = run.error instanceof ApiError && run.error.status === 404;
  return (
    <div className="view fixed">
      {gone ? (
        data ? (
          <>
            <div className="problem mild" role="alert">
              <Mark state="cancelled" />
              <span>
                This run was deleted while it was open. What is shown is the last that was known.
              </span>
            </div>
            <Dialect of={data.dialect}>
              <RunBody run={data} />
            </Dialect>
          </>
        ) : (
          <Empty title="This run does not exist">
            <p>It was deleted, by a person or by retention, or the address is wrong.</p>
            <Link to="/runs" className="button">
              All runs
            </Link>
          </Empty>
        )
      ) : (
        <Await of={run} what="the run">
          {() =>
            data ? (
              <Dialect of={data.dialect}>
                <RunBody run={data} />
              </Dialect>
            ) : null
          }
        </Await>
      )}
    </div>
  );
}

type Acting =
  | { kind: TaskActionKind; target: TaskTarget; onlyFailed?: boolean }
  | { kind: "stop" | "rerun" | "delete" };

function RunBody({ run }: { run: Run }) {
  const [search, set] = useAddress();
  const navigate = useNavigate();
  const [acting, setActing] = useState<Acting | null>(null);
  const workflow = useApi<WorkflowDetail>(`/workflows/${enc(run.workflow)}`);
  useWorkflowZone(workflow.data?.timezone);
  const tab = search.tab ?? "graph";
  const finished = isFinished(run.state);
  const failed = (run.counts.failed ?? 0) + (run.counts.upstream_failed ?? 0);
  const close = () => setActing(null);
  const words = useWords();
  const wordOf = useStateWord();

  const hold = useAction<Run, "pause" | "resume">({
    run: (what, key) =>
      request(`/runs/${run.id}/${what}`, { method: "POST", body: {}, idempotencyKey: key }),
    touches: ["/runs", "/summary"],
    done: (_, what) => (what === "pause" ? "Paused: no new task starts" : "Goes on"),
  });

  useKeys("Run", [
    {
      keys: "shift+c",
      word: `${words.rerun} ${failed > 0 ? "failed " : ""}${words.tasks}`,
      run: () => setActing({ kind: "clear", target: { run: run.id }, onlyFailed: failed > 0 }),
    },
    { keys: "1", word: "Graph", run: () => set({ tab: "graph" }) },
    { keys: "2", word: "Timeline", run: () => set({ tab: "timeline" }) },
    { keys: "3", word: upper(words.tasks), run: () => set({ tab: "tasks" }) },
    { keys: "4", word: "Events", run: () => set({ tab: "events" }) },
  ]);

  const openTask = useCallback(
    (task: string) =>
      set(
        { task, node: undefined, pane: undefined, attempt: undefined, artifact: undefined },
        true,
      ),
    [set],
  );

  return (
    <>
      <div className="page-head">
        <div className="row wrap">
          <State state={run.state} />
          <h1 className="cut" dir="auto">
            <Link to="/workflows/$name" params={{ name: run.workflow }}>
              {run.workflow}
            </Link>
          </h1>
          {run.interval_start ? (
            <span className="chip">
              {words.interval ? <span className="quiet">{words.interval}</span> : null}
              {words.intervalStartOnly ? (
                <Exact at={run.interval_start} />
              ) : (
                <Interval start={run.interval_start} end={run.interval_end} />
              )}
            </span>
          ) : null}
          {run.partition ? <span className="chip mono">{run.partition}</span> : null}
          <span className="grow" />
          {failed > 0 ? (
            <button
              type="button"
              className="button"
              onClick={() =>
                setActing({ kind: "clear", target: { run: run.id }, onlyFailed: true })
              }
            >
              {words.rerun} {formatCount(failed)} failed…
            </button>
          ) : finished && run.total > 0 ? (
            <button
              type="button"
              className="button"
              onClick={() => setActing({ kind: "clear", target: { run: run.id } })}
            >
              {words.rerun}…
            </button>
          ) : null}
          {run.state === "paused" ? (
            <button type="button" className="button" onClick={() => hold.mutate("resume")}>
              Go on
            </button>
          ) : null}
          {finished ? null : (
            <button type="button" className="button" onClick={() => setActing({ kind: "stop" })}>
              Stop…
            </button>
          )}
          <Menu label="More actions" button="More">
            <button
              type="button"
              onClick={() => setActing({ kind: "clear", target: { run: run.id } })}
            >
              {words.rerun} {words.tasks} of this {words.run}…
            </button>
            <button type="button" onClick={() => setActing({ kind: "rerun" })}>
              New {words.run} with these {words.params}…
            </button>
            <button
              type="button"
              disabled={finished || run.state === "paused"}
              onClick={() => hold.mutate("pause")}
            >
              Pause
            </button>
            <button type="button" onClick={() => void navigator.clipboard?.writeText(run.id)}>
              Copy id
            </button>
            <hr />
            <button
              type="button"
              disabled={!finished}
              onClick={() => setActing({ kind: "delete" })}
            >
              Delete…
            </button>
          </Menu>
        </div>
        <div className="row wrap quiet" style={{ gap: "2px 16px" }}>
          <span>
            took <Took start={run.started_at} end={run.ended_at} running={!finished} />
          </span>
          <span>
            {run.started_at ? (
              <>
                started <Exact at={run.started_at} />
              </>
            ) : (
              <>
                created <Ago at={run.created_at} />
              </>
            )}
          </span>
          <span>by {run.trigger}</span>
          <span>
            version <span className="mono">{run.version.slice(0, 7)}</span>
          </span>
          {run.generation > 0 ? <span>reopened {run.generation}×</span> : null}
          {run.backfill ? (
            <Link to="/backfills" search={{ backfill: run.backfill } as never}>
              part of a backfill
            </Link>
          ) : null}
          {run.parent ? (
            <Link to="/tasks/$id" params={{ id: run.parent }}>
              started by a task
            </Link>
          ) : null}
        </div>
        <div className="row wrap counts-line">
          <CountsBar counts={run.counts} width={160} />
          {orderedCounts(run.counts).map(([state, n]) => (
            <Link
              key={state}
              to="."
              search={((s: Record<string, string>) => ({ ...s, tab: "tasks", state })) as never}
              className="state"
              title={`Show the ${wordOf(state).toLowerCase()} tasks`}
            >
              <Mark state={state} /> {formatCount(n)}{" "}
              <span className="quiet">{wordOf(state).toLowerCase()}</span>
            </Link>
          ))}
          {run.total === 0 ? <span className="quiet">{countsText(run.counts)}</span> : null}
        </div>
        {run.message ? (
          <div className={`problem${run.state === "failed" ? "" : " mild"}`}>
            <Mark state={run.state} />
            <div className="grow pre-line">{run.message}</div>
          </div>
        ) : null}
      </div>
      <Tabs
        param="tab"
        value={tab}
        clears={["q", "state", "sort", "artifact"]}
        items={[
          ["graph", "Graph"],
          ["timeline", "Timeline"],
          ["tasks", upper(words.tasks)],
          ...(run.open ? ([["workers", "Workers"]] as const) : []),
          ["events", "Events"],
          ["artifacts", "Artifacts"],
          ["details", `${upper(words.params)} and notes`],
        ]}
      />
      <div className={`tab-body${["graph", "timeline"].includes(tab) ? " flush" : ""}`}>
        {tab === "graph" ? <RunGraph run={run} onOpenTask={openTask} /> : null}
        {tab === "timeline" ? (
          <RunTimeline run={run} chosen={search.task ?? null} onOpen={openTask} />
        ) : null}
        {tab === "tasks" ? <RunTasks run={run} onOpen={openTask} /> : null}
        {tab === "workers" ? <RunWorkersTab run={run} /> : null}
        {tab === "events" ? <EventList query={{ run: run.id }} /> : null}
        {tab === "artifacts" ? <Artifacts path={`/runs/${run.id}/artifacts`} /> : null}
        {tab === "details" ? <RunDetails run={run} /> : null}
      </div>
      <Suspense fallback={null}>
        {search.task ? (
          <TaskPanel
            id={search.task}
            onClose={() =>
              set({
                task: undefined,
                pane: undefined,
                attempt: undefined,
                find: undefined,
                level: undefined,
              })
            }
          />
        ) : null}
      </Suspense>
      {search.node && !search.task ? (
        <NodePanel
          run={run}
          path={search.node}
          onClose={() => set({ node: undefined })}
          onOpenTask={openTask}
        />
      ) : null}
      {acting?.kind === "stop" ? <CancelRunDialog id={run.id} onClose={close} /> : null}
      {acting?.kind === "rerun" ? (
        <StartRunDialog workflow={run.workflow} from={paramsOf(run)} onClose={close} />
      ) : null}
      {acting?.kind === "delete" ? (
        <RunsBulkDialog
          action="delete"
          ids={[run.id]}
          onClose={close}
          onDone={() => void navigate({ to: "/runs" })}
        />
      ) : null}
      {acting && "target" in acting ? (
        <TaskActionDialog
          action={acting.kind}
          target={acting.target}
          onlyFailed={acting.onlyFailed ?? false}
          onClose={close}
        />
      ) : null}
    </>
  );
}

function RunGraph({ run, onOpenTask }: { run: Run; onOpenTask: (id: string) => void }) {
  const [search, set] = useAddress();
  const graph = useApi<Graph>(`/runs/${run.id}/graph`, {}, { keep: false });
  const chosen =
    search.node ??
    (search.task ? (graph.data?.nodes.find((n) => n.task === search.task)?.id ?? null) : null);
  const choose = useCallback(
    (node: GraphNode) => {
      if (node.task && !node.mapped && !node.group) onOpenTask(node.task);
      else set({ node: node.id, task: undefined }, true);
    },
    [onOpenTask, set],
  );
  return (
    <Await of={graph} what="the graph">
      {() =>
        graph.data && graph.data.nodes.length > 0 ? (
          <Suspense fallback={<Loading what="the graph" />}>
            <GraphView
              key={run.id}
              graph={graph.data}
              chosen={chosen}
              onChoose={choose}
              label={`Graph of the run: ${countsText(run.counts)}`}
            />
          </Suspense>
        ) : (
          <Empty title="No task yet">
            <p>
              {run.open
                ? "This run is open: its tasks show as its driver adds them."
                : "Its tasks show as soon as it starts."}
            </p>
          </Empty>
        )
      }
    </Await>
  );
}
