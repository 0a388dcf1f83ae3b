import { Link } from "@tanstack/react-router";
import { lazy, Suspense } from "react";
import { type Query, request } from "../api/client";
import { useAction, useList } from "../api/hooks";
import type { Trigger } from "../api/types";
import { useAddress } from "../parts/address";
import { Await, Empty } from "../parts/basics";
import { Mark } from "../parts/mark";
import { type Column, Table } from "../parts/table";
import { Ago } from "../parts/time";

const TriggerPanel = lazy(() => import("./trigger-panel"));

export function TriggerSwitch({ trigger }: { trigger: Trigger }) {
  const action = useAction<Trigger, boolean>({
    run: (paused, key) =>
      request(`/triggers/${trigger.id}`, {
        method: "PATCH",
        body: { paused },
        idempotencyKey: key,
      }),
    touches: ["/triggers", "/workflows", "/summary"],
    done: (_, paused) => (paused ? "Paused: it starts nothing" : "On"),
  });
  return (
    <input
      type="checkbox"
      // biome-ignore lint/a11y/useAriaPropsForRole: a checkbox tells its state itself
      role="switch"
      className="switch"
      aria-label={`Trigger ${trigger.name ?? trigger.text} of ${trigger.workflow} is on`}
      checked={action.isPending ? !action.variables : !trigger.paused}
      onChange={(event) => action.mutate(!event.target.checked)}
    />
  );
}

export function TriggerTable({ query }: { query: Query }) {
  const [search, set] = useAddress();
  const list = useList<Trigger>("/triggers", query, 100);
  const columns: Column<Trigger>[] = [
    {
      key: "on",
      head: <span className="hidden-visually">On</span>,
      width: "28px",
      cell: (t) => <TriggerSwitch trigger={t} />,
    },
    ...(query.workflow
      ? []
      : [
          {
            key: "workflow",
            head: "Workflow",
            width: "minmax(110px, 1fr)",
            cell: (t: Trigger) => (
              <Link
                to="/workflows/$name"
                params={{ name: t.workflow }}
                className="strong"
                dir="auto"
              >
                {t.workflow}
              </Link>
            ),
          },
        ]),
    {
      key: "kind",
      head: "Kind",
      width: "72px",
      wide: true,
      cell: (t) => <span className="chip">{t.kind}</span>,
    },
    {
      key: "text",
      head: "When",
      width: "minmax(110px, 1.2fr)",
      cell: (t) => (
        <span className="row">
          <span className="mono cut">{t.text}</span>
          {t.timezone ? <span className="quiet cut wide-only">{t.timezone}</span> : null}
        </span>
      ),
    },
    {
      key: "next",
      head: "Next",
      width: "84px",
      cell: (t) => (t.paused ? <span className="quiet">paused</span> : <Ago at={t.next_at} />),
    },
    {
      key: "last",
      head: "Last decision",
      width: "minmax(100px, 1.2fr)",
      wide: true,
      cell: (t) =>
        t.last ? (
          <span className="row" title={t.last.reason ?? undefined}>
            <Mark state={t.last.decision} />
            <span className="cut">
              {t.last.decision} <Ago at={t.last.at} />{" "}
              <span className="quiet">{t.last.decision === "started" ? "" : t.last.reason}</span>
            </span>
          </span>
        ) : (
          <span className="quiet">none yet</span>
        ),
    },
    {
      key: "overlap",
      head: "If one still runs",
      width: "104px",
      wide: true,
      cell: (t) => <span className="quiet">{t.overlap}</span>,
    },
  ];
  return (
    <>
      <Await of={list} what="the triggers">
        <div className="card fill">
          <Table
            label="Triggers"
            columns={columns}
            rows={list.items}
            rowKey={(t) => t.id}
            rowHeight={38}
            more={list}
            chosen={search.trigger ?? null}
            onOpen={(t) => set({ trigger: t.id }, true)}
            empty={
              <Empty title="No trigger">
                <p>
                  A workflow's file says what starts it: a schedule, an asset, a webhook, another
                  run's end.
                </p>
                <pre>{`schedule: {cron: "0 2 * * *", timezone: Europe/Kyiv}`}</pre>
              </Empty>
            }
          />
        </div>
      </Await>
      <Suspense fallback={null}>
        {search.trigger ? (
          <TriggerPanel id={search.trigger} onClose={() => set({ trigger: undefined })} />
        ) : null}
      </Suspense>
    </>
  );
}
