import { Link } from "@tanstack/react-router";
import type { Query } from "../api/client";
import { useList } from "../api/hooks";
import type { KobzaEvent } from "../api/types";
import { Await, Empty } from "../parts/basics";
import { Mark } from "../parts/mark";
import { type Column, Table } from "../parts/table";
import { Ago } from "../parts/time";

export function EventList({ query, empty }: { query: Query; empty?: React.ReactNode }) {
  const list = useList<KobzaEvent>("/events", query, 100);
  const inRun = Boolean(query.run);
  const columns: Column<KobzaEvent>[] = [
    { key: "at", head: "When", width: "80px", cell: (e) => <Ago at={e.at} /> },
    {
      key: "kind",
      head: "What",
      width: "92px",
      cell: (e) => (
        <span className="row">
          {e.state ? <Mark state={e.state} title={e.state} /> : <span style={{ width: 12 }} />}
          <span className="quiet cut">{e.kind}</span>
        </span>
      ),
    },
    ...(inRun
      ? []
      : [
          {
            key: "workflow",
            head: "Workflow",
            width: "minmax(90px, 0.6fr)",
            wide: true,
            cell: (e: KobzaEvent) =>
              e.run ? (
                <Link to="/runs/$id" params={{ id: e.run }} className="strong cut">
                  {e.workflow ?? e.run.slice(-8)}
                </Link>
              ) : e.workflow ? (
                <Link to="/workflows/$name" params={{ name: e.workflow }} className="strong cut">
                  {e.workflow}
                </Link>
              ) : null,
          },
        ]),
    {
      key: "text",
      head: "",
      width: "minmax(0, 1.6fr)",
      cell: (e) =>
        e.task ? (
          <Link to="/tasks/$id" params={{ id: e.task }} title={e.text} dir="auto">
            {e.text}
          </Link>
        ) : (
          <span title={e.text} dir="auto">
            {e.text}
          </span>
        ),
    },
    {
      key: "by",
      head: "By",
      width: "90px",
      wide: true,
      cell: (e) => <span className="quiet">{e.by}</span>,
    },
    {
      key: "seq",
      head: "No.",
      width: "76px",
      end: true,
      wide: true,
      cell: (e) => <span className="quiet mono">{e.seq}</span>,
    },
  ];
  return (
    <Await of={list} what="the events">
      <div className="card fill">
        <Table
          label="Events"
          columns={columns}
          rows={list.items}
          rowKey={(e) => String(e.seq)}
          rowHeight={30}
          more={list}
          empty={empty ?? <Empty title="No event yet" />}
        />
      </div>
    </Await>
  );
}
