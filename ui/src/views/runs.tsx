import { Link, useNavigate } from "@tanstack/react-router";
import { useEffect, useState } from "react";
import { type RunsAction, RunsBulkDialog } from "../act/runs";
import { useList } from "../api/hooks";
import type { Run } from "../api/types";
import { formatCount } from "../model/duration";
import { RUN_STATES, wordOf } from "../model/states";
import { listOf, toggled, useAddress } from "../parts/address";
import { Await, Empty, Menu, runLabel, SearchField } from "../parts/basics";
import { CountsBar, Mark, State } from "../parts/mark";
import { type Column, Table } from "../parts/table";
import { Ago, Interval, Took } from "../parts/time";
import { useTitle } from "../shell/crumbs";

const FILTERS = [
  "q",
  "state",
  "workflow",
  "trigger",
  "version",
  "backfill",
  "since",
  "until",
  "label",
  "parent",
] as const;

export function RunsView() {
  useTitle("Runs", [{ key: "runs", node: "Runs" }]);
  return (
    <div className="view fixed">
      <RunList />
    </div>
  );
}

/** The runs of one workflow, or of all. */
export function RunList({ workflow }: { workflow?: string }) {
  const navigate = useNavigate();
  const [search, set] = useAddress();
  const [chosen, setChosen] = useState<Set<string>>(new Set());
  const [bulk, setBulk] = useState<{ action: RunsAction; ids: string[] | null } | null>(null);
  const query: Record<string, string | undefined> = Object.fromEntries(
    FILTERS.map((key) => [key, search[key]]),
  );
  if (workflow) query.workflow = workflow;
  const list = useList<Run>("/runs", { ...query, sort: search.sort }, 100);
  const filtered = FILTERS.some((key) => search[key]);
  const states = listOf(search.state);
  const signature = JSON.stringify(query);
  // biome-ignore lint/correctness/useExhaustiveDependencies: another list, another choice
  useEffect(() => setChosen(new Set()), [signature]);

  const columns: Column<Run>[] = [
    {
      key: "state",
      head: "State",
      width: "104px",
      cell: (run) => <State state={run.state} />,
    },
    {
      key: "run",
      head: workflow ? "Run" : "Workflow",
      width: "minmax(120px, 1.2fr)",
      cell: (run) => (
        <span className="row">
          {workflow ? null : (
            <Link to="/runs/$id" params={{ id: run.id }} className="strong cut" dir="auto">
              {run.workflow}
            </Link>
          )}
          <Link to="/runs/$id" params={{ id: run.id }} className="mono quiet" title={run.id}>
            {runLabel(run.id)}
          </Link>
        </span>
      ),
    },
    {
      key: "for",
      head: "For",
      wide: true,
      width: "minmax(212px, 1.4fr)",
      cell: (run) =>
        run.interval_start ? (
          <Interval start={run.interval_start} end={run.interval_end} />
        ) : run.partition ? (
          <span className="mono">{run.partition}</span>
        ) : run.key ? (
          <span className="quiet mono" title={run.key}>
            {run.key}
          </span>
        ) : null,
    },
    {
      key: "trigger",
      head: "By",
      wide: true,
      width: "84px",
      cell: (run) => <span className="quiet">{run.trigger}</span>,
    },
    {
      key: "tasks",
      head: "Tasks",
      wide: true,
      width: "150px",
      cell: (run) => (
        <span className="row">
          <CountsBar counts={run.counts} width={80} />
          <span className="quiet">{formatCount(run.total)}</span>
        </span>
      ),
    },
    {
      key: "started",
      head: "Created",
      sort: "created_at",
      width: "86px",
      cell: (run) => <Ago at={run.created_at} />,
    },
    {
      key: "took",
      head: "Took",
      sort: "duration",
      width: "92px",
      end: true,
      cell: (run) => <Took start={run.started_at} end={run.ended_at} />,
    },
    {
      key: "note",
      head: "Message",
      wide: true,
      width: "minmax(0, 1fr)",
      cell: (run) => <span className="quiet">{run.note ?? run.message}</span>,
    },
  ];
  const ids = [...chosen];
  return (
    <>
      <div className="filters">
        <SearchField
          label={workflow ? "Id, key, partition" : "Workflow, id, key, partition"}
          value={search.q ?? ""}
          onChange={(q) => set({ q })}
        />
        {RUN_STATES.map((state) => (
          <button
            key={state}
            type="button"
            className="chip"
            aria-pressed={states.includes(state)}
            onClick={() => set({ state: toggled(search.state, state) })}
          >
            <Mark state={state} /> {wordOf(state)}
          </button>
        ))}
        {(
          [
            "workflow",
            "trigger",
            "version",
            "backfill",
            "label",
            "parent",
            "since",
            "until",
          ] as const
        ).map((key) =>
          search[key] && !(key === "workflow" && workflow) ? (
            <button
              key={key}
              type="button"
              className="chip"
              aria-pressed="true"
              title="Take this filter away"
              onClick={() => set({ [key]: undefined })}
            >
              {key} {search[key]} ✕
            </button>
          ) : null,
        )}
        {filtered ? (
          <button
            type="button"
            className="button plain"
            onClick={() => set(Object.fromEntries(FILTERS.map((key) => [key, undefined])))}
          >
            Clear filters
          </button>
        ) : null}
        <span className="grow" />
        {list.total === undefined ? null : (
          <span className="quiet">{formatCount(list.total)} runs</span>
        )}
        <Menu
          label="Do something with runs"
          button={ids.length > 0 ? `${ids.length} chosen…` : "Do…"}
        >
          {(
            [
              ["clear_failed", "Rerun failed tasks"],
              ["cancel", "Cancel"],
              ["pause", "Pause"],
              ["resume", "Resume"],
              ["delete", "Delete"],
            ] as [RunsAction, string][]
          ).map(([action, word]) => (
            <button
              key={action}
              type="button"
              disabled={ids.length === 0}
              onClick={() => setBulk({ action, ids })}
            >
              {word}
              {ids.length > 0 ? ` (${ids.length})` : ""}
            </button>
          ))}
          <button
            type="button"
            disabled={ids.length < 2 || ids.length > 12}
            onClick={() =>
              void navigate({ to: "/compare", search: { runs: ids.join(",") } as never })
            }
          >
            Compare
          </button>
          <hr />
          <button
            type="button"
            disabled={!filtered && !workflow}
            title="Everything that the filters match, not only what is shown"
            onClick={() => setBulk({ action: "cancel", ids: null })}
          >
            Cancel all that match
          </button>
          <button
            type="button"
            disabled={!filtered && !workflow}
            onClick={() => setBulk({ action: "clear_failed", ids: null })}
          >
            Rerun failed tasks of all that match
          </button>
        </Menu>
      </div>
      <Await of={list} what="the runs">
        <div className="card fill">
          <Table
            label="Runs"
            columns={columns}
            rows={list.items}
            rowKey={(run) => run.id}
            more={list}
            sort={search.sort ?? "-created_at"}
            onSort={(sort) => set({ sort })}
            selection={{ ids: chosen, set: setChosen }}
            onOpen={(run) => void navigate({ to: "/runs/$id", params: { id: run.id } })}
            empty={
              filtered ? (
                <Empty title="No run matches the filters">
                  <p>Take one away to see more.</p>
                </Empty>
              ) : (
                <Empty title="Nothing has run yet">
                  <p>
                    Start one from a workflow's page, with <code>kobza runs start NAME</code>, or
                    wait for a trigger.
                  </p>
                </Empty>
              )
            }
          />
        </div>
      </Await>
      {bulk ? (
        <RunsBulkDialog
          action={bulk.action}
          ids={bulk.ids}
          filter={
            bulk.ids
              ? null
              : (Object.fromEntries(
                  Object.entries(query).filter(([, value]) => value !== undefined),
                ) as Record<string, string>)
          }
          onClose={() => setBulk(null)}
          onDone={() => setChosen(new Set())}
        />
      ) : null}
    </>
  );
}
