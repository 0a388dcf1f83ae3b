import { Link } from "@tanstack/react-router";
import { lazy, Suspense } from "react";
import { useApi } from "../api/hooks";
import type { Health, Run, Summary } from "../api/types";
import { formatCount, formatDuration } from "../model/duration";
import { Await, runLabel } from "../parts/basics";
import { HistoryChart } from "../parts/history-chart";
import { CountsBar, Mark, State } from "../parts/mark";
import { Ago, Took } from "../parts/time";
import { useTitle } from "../shell/crumbs";

const FirstSteps = lazy(() => import("./first-steps"));

export function HomeView() {
  useTitle("Home", [{ key: "home", node: "Home" }]);
  const summary = useApi<Summary>("/summary", { hours: 24 });
  const health = useApi<Health>("/health");
  return (
    <div className="view">
      <Await of={summary} what="what runs and what failed">
        {() => (summary.data ? <HomeBody data={summary.data} health={health.data} /> : null)}
      </Await>
    </div>
  );
}

function Figure({
  word,
  n,
  state,
  search,
}: {
  word: string;
  n: number;
  state: string;
  search: Record<string, string>;
}) {
  return (
    <Link to="/runs" search={search as never} className={`figure${n === 0 ? " none" : ""}`}>
      <span className="figure-number">{formatCount(n)}</span>
      <span className="row">
        <Mark state={state} /> {word}
      </span>
    </Link>
  );
}

function HomeBody({ data, health }: { data: Summary; health: Health | undefined }) {
  const runs = (state: string) => data.runs[state] ?? 0;
  const since = new Date(Date.now() - 86_400_000).toISOString().replace(/\.\d+Z$/, "Z");
  const never =
    data.history.every((h) => h.succeeded + h.failed + h.cancelled === 0) &&
    Object.values(data.runs).every((n) => n === 0);
  return (
    <>
      {data.workflow_errors.length > 0 ? (
        <div className="problem">
          <Mark state="failed" />
          <div className="grow">
            <div className="strong">
              {data.workflow_errors.length === 1
                ? "A workflow does not parse. Where it had a version, that stays in force."
                : `${data.workflow_errors.length} workflows do not parse. Where they had a version, that stays in force.`}
            </div>
            {data.workflow_errors.slice(0, 4).map((error) => (
              <div key={error.name} className="cut">
                <Link
                  to="/workflows/$name"
                  params={{ name: error.name }}
                  search={{ tab: "code" } as never}
                  className="strong"
                >
                  {error.name}
                </Link>
                {error.line ? <span className="mono"> line {error.line}</span> : null}:{" "}
                {error.message}
              </div>
            ))}
          </div>
        </div>
      ) : null}
      <section className="figures" aria-label="Runs">
        <Figure word="running" n={runs("running")} state="running" search={{ state: "running" }} />
        <Figure word="queued" n={runs("queued")} state="queued" search={{ state: "queued" }} />
        <Figure
          word="failed in 24 h"
          n={runs("failed")}
          state="failed"
          search={{ state: "failed", since }}
        />
        <Figure
          word="succeeded in 24 h"
          n={runs("succeeded")}
          state="succeeded"
          search={{ state: "succeeded", since }}
        />
        <div className="figure-chart">
          <HistoryChart hours={data.history} />
        </div>
      </section>
      {never ? (
        <Suspense fallback={null}>
          <FirstSteps />
        </Suspense>
      ) : null}
      <div className="home-columns">
        <div className="stack">
          <section className="card">
            <header>
              <h2 className="grow">Waits for you</h2>
            </header>
            {data.waiting.length === 0 ? (
              <p className="line quiet">No approval is asked for.</p>
            ) : (
              data.waiting.map((task) => (
                <Link key={task.id} to="/tasks/$id" params={{ id: task.id }} className="line">
                  <Mark state={task.state} title="Suspended" />
                  <span className="cut strong">{task.workflow}</span>
                  <span className="cut quiet grow">{task.path}</span>
                </Link>
              ))
            )}
            {data.late.length > 0 ? (
              <>
                <header className="sub">
                  <h2>Late</h2>
                </header>
                {data.late.map((late) => (
                  <Link
                    key={`${late.trigger}${late.due_at}`}
                    to="/workflows/$name"
                    params={{ name: late.workflow }}
                    search={{ tab: "triggers" } as never}
                    className="line"
                  >
                    <Mark state="retry_wait" title="Late" />
                    <span className="cut strong">{late.workflow}</span>
                    <span className="cut quiet grow">{late.reason}</span>
                    <span className="nowrap">{formatDuration(late.late_ms)} late</span>
                  </Link>
                ))}
              </>
            ) : null}
          </section>
          <section className="card">
            <header>
              <h2 className="grow">Failed</h2>
              <Link to="/runs" search={{ state: "failed" } as never} className="quiet">
                All
              </Link>
            </header>
            <RunLines runs={data.failed} empty="Nothing failed in the last 24 hours." failed />
          </section>
        </div>
        <div className="stack">
          <section className="card">
            <header>
              <h2 className="grow">Running</h2>
              <Link to="/runs" search={{ state: "running,queued" } as never} className="quiet">
                All
              </Link>
            </header>
            <RunLines runs={data.running} empty="Nothing runs now." />
          </section>
          <section className="card">
            <header>
              <h2 className="grow">Next</h2>
              <Link to="/triggers" className="quiet">
                All triggers
              </Link>
            </header>
            {data.upcoming.length === 0 ? (
              <p className="line quiet">No trigger is due. A workflow's file says when it runs.</p>
            ) : (
              data.upcoming.map((next) => (
                <Link
                  key={`${next.trigger}${next.at}`}
                  to="/workflows/$name"
                  params={{ name: next.workflow }}
                  search={{ tab: "triggers" } as never}
                  className="line"
                >
                  <span className="cut strong">{next.workflow}</span>
                  <span className="cut quiet grow mono">{next.text}</span>
                  <Ago at={next.at} />
                </Link>
              ))
            )}
          </section>
        </div>
      </div>
      {health ? (
        <section className="loops" aria-label="Health of the server's loops">
          {health.loops.map((loop) => (
            <span key={loop.name} className="row" title={loop.detail ?? undefined}>
              <Mark
                state={
                  loop.status === "ok"
                    ? "succeeded"
                    : loop.status === "late"
                      ? "retry_wait"
                      : "failed"
                }
                title={loop.status}
              />
              <span>{loop.name}</span>
              <span className="quiet">{loop.status}</span>
            </span>
          ))}
          <span className="quiet grow end">
            Kobza {health.version} on {health.store.kind}
          </span>
        </section>
      ) : null}
    </>
  );
}

function RunLines({ runs, empty, failed }: { runs: Run[]; empty: string; failed?: boolean }) {
  if (runs.length === 0) return <p className="line quiet">{empty}</p>;
  return (
    <>
      {runs.map((run) => (
        <Link
          key={run.id}
          to="/runs/$id"
          params={{ id: run.id }}
          search={(failed ? { tab: "tasks", state: "failed" } : {}) as never}
          className="line"
        >
          <State state={run.state} word="" />
          <span className="cut strong">{run.workflow}</span>
          <span className="quiet mono wide-only">{runLabel(run.id)}</span>
          <span className="cut grow quiet">{failed ? run.message : null}</span>
          {failed ? null : <CountsBar counts={run.counts} width={90} />}
          <span className="nowrap end" style={{ minWidth: 68 }}>
            {failed ? (
              <Ago at={run.ended_at} />
            ) : (
              <Took start={run.started_at} end={run.ended_at} />
            )}
          </span>
        </Link>
      ))}
    </>
  );
}
