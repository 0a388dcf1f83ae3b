import { Link } from "@tanstack/react-router";
import { lazy, Suspense } from "react";
import { useList } from "../api/hooks";
import type { Backfill } from "../api/types";
import { formatCount } from "../model/duration";
import { useAddress } from "../parts/address";
import { Await, Empty } from "../parts/basics";
import { CountsBar, State } from "../parts/mark";
import { type Column, Table } from "../parts/table";
import { Ago, Interval } from "../parts/time";
import { useTitle } from "../shell/crumbs";

const BackfillPanel = lazy(() => import("./backfill-panel"));
const BackfillForm = lazy(() => import("../act/backfill"));

export function BackfillsView() {
  useTitle("Backfills", [{ key: "backfills", node: "Backfills" }]);
  const [search, set] = useAddress();
  const list = useList<Backfill>("/backfills", { workflow: search.of, state: search.state }, 100);
  const start = () => set({ new: "1" }, true);
  const columns: Column<Backfill>[] = [
    { key: "state", head: "State", width: "104px", cell: (b) => <State state={b.state} /> },
    {
      key: "workflow",
      head: "Workflow",
      width: "minmax(110px, 1fr)",
      cell: (b) => (
        <Link to="/workflows/$name" params={{ name: b.workflow }} className="strong" dir="auto">
          {b.workflow}
        </Link>
      ),
    },
    {
      key: "range",
      head: "For",
      wide: true,
      width: "minmax(212px, 1fr)",
      cell: (b) =>
        b.from ? (
          <Interval start={b.from} end={b.to} />
        ) : (
          <span>{b.partitions ?? 0} partitions</span>
        ),
    },
    {
      key: "progress",
      head: "Progress",
      width: "minmax(110px, 1.2fr)",
      cell: (b) => {
        const done = (b.counts.succeeded ?? 0) + (b.counts.skipped ?? 0);
        return (
          <span className="row">
            <CountsBar counts={b.counts} width={110} />
            <span className="quiet nowrap">
              {formatCount(done)} of {formatCount(b.total)}
            </span>
          </span>
        );
      },
    },
    {
      key: "how",
      head: "At once",
      wide: true,
      width: "66px",
      end: true,
      cell: (b) => b.parallelism,
    },
    {
      key: "at",
      head: "Created",
      wide: true,
      width: "84px",
      cell: (b) => <Ago at={b.created_at} />,
    },
    {
      key: "by",
      head: "By",
      wide: true,
      width: "84px",
      cell: (b) => <span className="quiet">{b.created_by}</span>,
    },
  ];
  return (
    <div className="view fixed">
      <div className="filters">
        {["running", "paused", "failed", "succeeded"].map((state) => (
          <button
            key={state}
            type="button"
            className="chip"
            aria-pressed={search.state === state}
            onClick={() => set({ state: search.state === state ? undefined : state })}
          >
            <State state={state} />
          </button>
        ))}
        <span className="grow" />
        <button type="button" className="button primary" onClick={start}>
          New backfill…
        </button>
      </div>
      <Await of={list} what="the backfills">
        <div className="card fill">
          <Table
            label="Backfills"
            columns={columns}
            rows={list.items}
            rowKey={(b) => b.id}
            rowHeight={38}
            more={list}
            chosen={search.backfill ?? null}
            onOpen={(b) => set({ backfill: b.id }, true)}
            empty={
              <Empty title="No backfill">
                <p>
                  A backfill runs a scheduled workflow for slots of the past: see first which runs
                  it would make, then pause it, go on, or rerun only what failed.
                </p>
                <button type="button" className="button primary" onClick={start}>
                  New backfill…
                </button>
              </Empty>
            }
          />
        </div>
      </Await>
      <Suspense fallback={null}>
        {search.backfill ? (
          <BackfillPanel id={search.backfill} onClose={() => set({ backfill: undefined })} />
        ) : null}
        {search.new === "1" ? (
          <BackfillForm
            workflow={search.workflow ?? ""}
            only={search.only ?? "missing"}
            onClose={() => set({ new: undefined, workflow: undefined, only: undefined })}
            onMade={(id) =>
              set({ new: undefined, workflow: undefined, only: undefined, backfill: id })
            }
          />
        ) : null}
      </Suspense>
    </div>
  );
}
