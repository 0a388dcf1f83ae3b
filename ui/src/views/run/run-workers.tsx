import { Link } from "@tanstack/react-router";
import { useApi } from "../../api/hooks";
import type { Run, RunResource, RunWorker, RunWorkers } from "../../api/types";
import { useWords } from "../../dialects/context";
import { upper } from "../../dialects/words";
import { formatCount, plural } from "../../model/duration";
import { Await, Empty } from "../../parts/basics";
import { Mark } from "../../parts/mark";
import { type Column, Table } from "../../parts/table";
import { Ago } from "../../parts/time";

/** A worker that pings makes no event, so that only asking tells that it lives. */
const ASK_EVERY_MS = 5000;

/** Who works for a run whose workers come from outside, and what they share. */
export function RunWorkersTab({ run }: { run: Run }) {
  const words = useWords();
  const found = useApi<RunWorkers>(`/runs/${run.id}/workers`, {}, { every: ASK_EVERY_MS });
  const columns: Column<RunWorker>[] = [
    {
      key: "name",
      head: "Worker",
      width: "minmax(150px, 3fr)",
      cell: (w) => (
        <span className="row">
          <span className="cut strong mono" dir="auto" title={w.name}>
            {w.name}
          </span>
          {w.disabled ? <span className="chip">disabled</span> : null}
          {w.assistant ? <span className="chip">assistant</span> : null}
        </span>
      ),
    },
    {
      key: "seen",
      head: "Last seen",
      width: "92px",
      cell: (w) => <Ago at={w.seen_at} />,
    },
    {
      key: "busy",
      head: "Busy",
      width: "92px",
      cell: (w) => (
        <span className="nowrap">
          {formatCount(w.running.length)} of {formatCount(w.processes)}
        </span>
      ),
    },
    {
      key: "running",
      head: "Runs now",
      width: "minmax(120px, 2fr)",
      cell: (w) =>
        w.running.length > 0 ? (
          <span className="cut">
            {w.running.slice(0, 3).map((task, at) => (
              <span key={task}>
                {at > 0 ? ", " : ""}
                <Link to="." search={{ tab: "tasks", q: task } as never} title={task} dir="auto">
                  {task}
                </Link>
              </span>
            ))}
            {w.running.length > 3 ? (
              <span className="quiet"> and {formatCount(w.running.length - 3)} more</span>
            ) : null}
          </span>
        ) : (
          <span className="quiet">nothing</span>
        ),
    },
    {
      key: "pending",
      head: "Pending",
      width: "78px",
      end: true,
      cell: (w) => (
        <span title={`${plural(w.unique, "task")} of them for this worker only`}>
          {formatCount(w.pending)}
        </span>
      ),
    },
    {
      key: "started",
      head: "Since",
      wide: true,
      width: "92px",
      cell: (w) => <Ago at={w.started_at} />,
    },
  ];
  return (
    <Await of={found} what="the workers">
      {() =>
        found.data ? (
          <div className="stack">
            {found.data.paused ? (
              <div className="problem mild" role="status">
                <Mark state="paused" />
                <span>Paused: no worker gets another {words.task}.</span>
              </div>
            ) : null}
            {found.data.resources.length > 0 ? (
              <section className="card" aria-label={upper(words.limits)}>
                <header>
                  <h2>{upper(words.limits)}</h2>
                </header>
                <ul className="body stack" style={{ listStyle: "none", margin: 0 }}>
                  {found.data.resources.map((resource) => (
                    <Share key={resource.name} of={resource} />
                  ))}
                </ul>
              </section>
            ) : null}
            <Table
              label="Workers"
              columns={columns}
              rows={found.data.workers}
              rowKey={(w) => w.name}
              empty={
                <Empty title="No worker is there">
                  <p>
                    A worker shows as soon as it asks for a {words.task}; one that was not heard of
                    for a while is taken off the list.
                  </p>
                </Empty>
              }
            />
          </div>
        ) : null
      }
    </Await>
  );
}

function Share({ of }: { of: RunResource }) {
  const part = of.total > 0 ? Math.min(100, (of.used / of.total) * 100) : 100;
  return (
    <li className="row">
      <span className="cut strong" style={{ width: 160 }} dir="auto">
        {of.name}
      </span>
      <span className={`meter grow${of.used >= of.total ? " full" : ""}`} aria-hidden>
        <i style={{ width: `${part}%` }} />
      </span>
      <span className="nowrap">
        {of.used} of {of.total}
      </span>
      <span className="quiet nowrap" style={{ width: 90 }}>
        {plural(of.tasks, "task")}
      </span>
    </li>
  );
}
