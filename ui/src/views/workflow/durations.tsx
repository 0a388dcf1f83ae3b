import { Link } from "@tanstack/react-router";
import { enc } from "../../api/client";
import { useApi } from "../../api/hooks";
import type { RunBar, WorkflowDetail } from "../../api/types";
import { formatCount, formatDuration, spanMs } from "../../model/duration";
import { lookOf, wordOf } from "../../model/states";
import { formatShort } from "../../model/zone";
import { Await, Empty } from "../../parts/basics";
import { useZone } from "../../shell/prefs";

interface Answer {
  runs: RunBar[];
  tasks: {
    name: string;
    count: number;
    failed: number;
    p50_ms: number;
    p95_ms: number;
    max_ms: number;
  }[];
}

/** How long runs and tasks take, and which of them grow or vary. */
export function Durations({ workflow }: { workflow: WorkflowDetail }) {
  const zone = useZone();
  const query = useApi<Answer>(`/workflows/${enc(workflow.name)}/durations`, { limit: 100 });
  return (
    <Await of={query} what="the durations">
      {() => {
        const data = query.data;
        if (!data || data.runs.length === 0) return <Empty title="No run has ended yet" />;
        const lengths = data.runs.map(
          (run) => spanMs(run.started_at, run.ended_at, Date.now()) ?? 0,
        );
        const longest = Math.max(1, ...lengths);
        const slowest = Math.max(1, ...data.tasks.map((task) => task.max_ms));
        return (
          <div className="stack">
            <section className="card">
              <header>
                <h2 className="grow">Runs</h2>
                <span className="quiet">longest {formatDuration(longest)}</span>
              </header>
              <div className="body duration-chart">
                {data.runs.map((run, i) => {
                  const words = `${formatShort(Date.parse(run.interval_start ?? run.created_at), zone)}: ${wordOf(run.state)}, ${formatDuration(lengths[i])}`;
                  return (
                    <Link
                      key={run.id}
                      to="/runs/$id"
                      params={{ id: run.id }}
                      className={`look-${lookOf(run.state)}`}
                      style={{ height: `${Math.max(2, ((lengths[i] ?? 0) / longest) * 100)}%` }}
                      title={words}
                      aria-label={words}
                      tabIndex={-1}
                      preload={false}
                    />
                  );
                })}
              </div>
            </section>
            <section className="card">
              <header>
                <h2 className="grow">Tasks</h2>
                <span className="quiet">median, 95 of 100, longest</span>
              </header>
              <div className="duration-rows">
                {data.tasks.map((task) => (
                  <div key={task.name} className="duration-row">
                    <span className="cut" dir="auto">
                      {task.name}
                    </span>
                    <span
                      className="duration-track"
                      role="img"
                      aria-label={`median ${formatDuration(task.p50_ms)}, longest ${formatDuration(task.max_ms)}`}
                    >
                      <i className="max" style={{ width: `${(task.max_ms / slowest) * 100}%` }} />
                      <i className="p95" style={{ width: `${(task.p95_ms / slowest) * 100}%` }} />
                      <i className="p50" style={{ width: `${(task.p50_ms / slowest) * 100}%` }} />
                    </span>
                    <span className="end nowrap">{formatDuration(task.p50_ms)}</span>
                    <span className="end nowrap wide-only">{formatDuration(task.p95_ms)}</span>
                    <span className="end nowrap wide-only">{formatDuration(task.max_ms)}</span>
                    <span className="end nowrap quiet">
                      {task.failed > 0 ? (
                        <span className="look-failed state">{formatCount(task.failed)} failed</span>
                      ) : (
                        `${formatCount(task.count)} ok`
                      )}
                    </span>
                  </div>
                ))}
              </div>
            </section>
          </div>
        );
      }}
    </Await>
  );
}
