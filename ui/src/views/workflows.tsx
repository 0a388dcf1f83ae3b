import { Link, useNavigate } from "@tanstack/react-router";
import { Play } from "lucide-react";
import { useState } from "react";
import { StartRunDialog } from "../act/start-run";
import { enc, request } from "../api/client";
import { useAction, useList } from "../api/hooks";
import type { Workflow, WorkflowPage } from "../api/types";
import { useAddress } from "../parts/address";
import { Await, Empty, SearchField } from "../parts/basics";
import { Mark, State } from "../parts/mark";
import { RunBars } from "../parts/run-bars";
import { type Column, Table } from "../parts/table";
import { Ago } from "../parts/time";
import { useTitle } from "../shell/crumbs";

export function PauseSwitch({ workflow }: { workflow: Workflow }) {
  const action = useAction<Workflow, boolean>({
    run: (paused, key) =>
      request(`/workflows/${enc(workflow.name)}`, {
        method: "PATCH",
        body: { paused },
        idempotencyKey: key,
      }),
    touches: ["/workflows", "/triggers", "/summary"],
    done: (_, paused) =>
      `${workflow.name} ${paused ? "paused: its triggers start nothing" : "resumed"}`,
  });
  const paused = action.isPending ? Boolean(action.variables) : workflow.paused;
  return (
    <input
      type="checkbox"
      // biome-ignore lint/a11y/useAriaPropsForRole: a checkbox tells its state itself
      role="switch"
      className="switch"
      checked={!paused}
      aria-label={`Triggers of ${workflow.name} are on`}
      title={paused ? "Paused: turn its triggers on" : "On: pause its triggers"}
      onChange={(event) => action.mutate(!event.target.checked)}
    />
  );
}

const FILTERS = ["q", "tag", "dialect", "state", "paused", "error"] as const;

export function WorkflowsView() {
  useTitle("Workflows", [{ key: "workflows", node: "Workflows" }]);
  const navigate = useNavigate();
  const [search, set] = useAddress();
  const [starting, setStarting] = useState<string | null>(null);
  const query = Object.fromEntries(FILTERS.map((key) => [key, search[key]]));
  const list = useList<Workflow, WorkflowPage>("/workflows", { ...query, sort: search.sort }, 50);
  const facets = list.first?.facets;
  const filtered = FILTERS.some((key) => search[key]);

  const columns: Column<Workflow>[] = [
    {
      key: "on",
      head: <span className="hidden-visually">Triggers on</span>,
      width: "28px",
      cell: (w) => <PauseSwitch workflow={w} />,
    },
    {
      key: "name",
      head: "Workflow",
      sort: "name",
      width: "minmax(130px, 1.4fr)",
      cell: (w) => (
        <span className="row">
          <Link to="/workflows/$name" params={{ name: w.name }} className="strong cut" dir="auto">
            {w.name}
          </Link>
          {w.error ? (
            <Link
              to="/workflows/$name"
              params={{ name: w.name }}
              search={{ tab: "code" } as never}
              title={w.error.message}
            >
              <State state="failed" word="does not parse" />
            </Link>
          ) : null}
          {w.dialect === "native" ? null : <span className="chip wide-only">{w.dialect}</span>}
          {w.tags.slice(0, 3).map((tag) => (
            <button
              key={tag}
              type="button"
              className="chip wide-only"
              style={{ height: 20 }}
              onClick={() => set({ tag })}
            >
              {tag}
            </button>
          ))}
        </span>
      ),
    },
    {
      key: "runs",
      head: "Last runs",
      width: "166px",
      cell: (w) =>
        w.last_runs.length > 0 ? (
          <RunBars runs={w.last_runs} />
        ) : (
          <span className="quiet">never ran</span>
        ),
    },
    {
      key: "last",
      head: "Last",
      sort: "last_run_at",
      wide: true,
      width: "150px",
      cell: (w) => {
        const last = w.last_runs.at(-1);
        return last ? (
          <span className="row">
            <Mark state={last.state} title={last.state} />
            <Ago at={last.ended_at ?? last.started_at ?? last.created_at} />
            {w.active_runs > 0 ? <span className="quiet">{w.active_runs} active</span> : null}
          </span>
        ) : (
          <span className="quiet">–</span>
        );
      },
    },
    {
      key: "next",
      head: "Next",
      sort: "next_run_at",
      wide: true,
      width: "minmax(120px, 0.7fr)",
      cell: (w) => (
        <span className="row" title={w.schedule ?? undefined}>
          {w.paused ? (
            <span className="quiet">paused</span>
          ) : w.next_run_at ? (
            <Ago at={w.next_run_at} />
          ) : (
            <span className="quiet">{w.schedule ? "on event" : "by hand"}</span>
          )}
          <span className="quiet cut mono">{w.schedule}</span>
        </span>
      ),
    },
    {
      key: "run",
      head: <span className="hidden-visually">Run</span>,
      wide: true,
      width: "28px",
      cell: (w) => (
        <button
          type="button"
          className="button plain square"
          aria-label={`Run ${w.name}`}
          title={`Run ${w.name}`}
          onClick={() => setStarting(w.name)}
        >
          <Play size={14} />
        </button>
      ),
    },
  ];

  return (
    <div className="view fixed">
      <div className="filters">
        <SearchField label="Name" value={search.q ?? ""} onChange={(q) => set({ q })} />
        <select
          className="select"
          aria-label="State of the last run"
          value={search.state ?? ""}
          onChange={(event) => set({ state: event.target.value })}
        >
          <option value="">Any state</option>
          {["failed", "running", "succeeded", "queued", "paused", "cancelled"].map((state) => (
            <option key={state} value={state}>
              Last run {state}
            </option>
          ))}
        </select>
        <select
          className="select"
          aria-label="Triggers"
          value={search.paused ?? ""}
          onChange={(event) => set({ paused: event.target.value })}
        >
          <option value="">On and paused</option>
          <option value="false">On</option>
          <option value="true">Paused</option>
        </select>
        {facets && facets.dialects.length > 1
          ? facets.dialects.map((facet) => (
              <button
                key={facet.value}
                type="button"
                className="chip"
                aria-pressed={search.dialect === facet.value}
                onClick={() =>
                  set({ dialect: search.dialect === facet.value ? undefined : facet.value })
                }
              >
                {facet.value} <span className="quiet">{facet.count}</span>
              </button>
            ))
          : null}
        {facets?.tags.slice(0, 8).map((facet) => (
          <button
            key={facet.value}
            type="button"
            className="chip wide-only"
            aria-pressed={search.tag === facet.value}
            onClick={() => set({ tag: search.tag === facet.value ? undefined : facet.value })}
          >
            {facet.value} <span className="quiet">{facet.count}</span>
          </button>
        ))}
        {filtered ? (
          <button
            type="button"
            className="button plain"
            onClick={() => set(Object.fromEntries(FILTERS.map((key) => [key, undefined])))}
          >
            Clear filters
          </button>
        ) : null}
      </div>
      <Await of={list} what="the workflows">
        <div className="card fill">
          <Table
            label="Workflows"
            columns={columns}
            rows={list.items}
            rowKey={(w) => w.name}
            rowHeight={40}
            more={list}
            sort={search.sort ?? "name"}
            onSort={(sort) => set({ sort })}
            onOpen={(w) => void navigate({ to: "/workflows/$name", params: { name: w.name } })}
            empty={
              filtered ? (
                <Empty title="No workflow matches the filters">
                  <p>Take one away, or search everything with Ctrl-K.</p>
                </Empty>
              ) : (
                <Empty title="No workflow yet">
                  <p>
                    Put a file: <code>kobza workflows put hello.yaml</code>, or start the server
                    with <code>--workflows DIR</code> and it reads what is there.
                  </p>
                  <pre>{`name: hello\ntasks:\n  greet: {shell: "echo hello"}`}</pre>
                </Empty>
              )
            }
          />
        </div>
      </Await>
      {starting ? <StartRunDialog workflow={starting} onClose={() => setStarting(null)} /> : null}
    </div>
  );
}
