import { Link } from "@tanstack/react-router";
import { lazy, Suspense } from "react";
import type { Neighbour, TaskDetail } from "../../api/types";
import { totalOf } from "../../model/states";
import { CopyButton, Loading } from "../../parts/basics";
import { CountsBar, Mark } from "../../parts/mark";
import { Value } from "../../parts/value";
import { assetPath } from "../assets/path";

const Code = lazy(() => import("../../parts/code"));

export function ValuesTab({ task }: { task: TaskDetail }) {
  return (
    <div className="stack">
      <section className="stack" style={{ gap: 6 }}>
        <h2>Outputs</h2>
        {task.outputs.length === 0 ? (
          <p className="quiet">It put nothing out{task.ended_at ? "." : " yet."}</p>
        ) : (
          <dl className="facts">
            {task.outputs.map((output) => (
              <div key={output.key} style={{ display: "contents" }}>
                <dt className="mono">{output.key}</dt>
                <dd>
                  <Value value={output.value} />
                  {output.truncated ? <div className="quiet small">cut: it is larger</div> : null}
                </dd>
              </div>
            ))}
          </dl>
        )}
      </section>
      <section className="stack" style={{ gap: 6 }}>
        <h2>Inputs</h2>
        <Value value={task.inputs} empty="It takes no arguments." />
      </section>
      {task.produces.length > 0 ? (
        <section className="stack" style={{ gap: 6 }}>
          <h2>Makes</h2>
          <div className="row wrap">
            {task.produces.map((key) => (
              <Link key={key} to={assetPath(key) as never} className="chip mono">
                {key}
              </Link>
            ))}
          </div>
        </section>
      ) : null}
    </div>
  );
}

function Neighbours({ title, list }: { title: string; list: Neighbour[] }) {
  return (
    <section className="stack" style={{ gap: 6 }}>
      <h2>{title}</h2>
      {list.length === 0 ? (
        <p className="quiet">Nothing.</p>
      ) : (
        <ul className="stack" style={{ gap: 4 }}>
          {list.map((n) => (
            <li key={n.path} className="row">
              <Mark state={n.state} title={n.state} />
              {n.task ? (
                <Link to="/tasks/$id" params={{ id: n.task }} className="cut">
                  {n.path}
                </Link>
              ) : (
                <span className="cut">{n.path}</span>
              )}
              {totalOf(n.counts) > 1 ? <CountsBar counts={n.counts} width={90} /> : null}
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

export function DetailTab({ task }: { task: TaskDetail }) {
  return (
    <div className="stack">
      {task.rendered ? (
        <section className="stack" style={{ gap: 6 }}>
          <div className="row">
            <h2 className="grow">What is run</h2>
            <CopyButton text={task.rendered.text} label="Copy" />
          </div>
          <Suspense fallback={<Loading what="the editor" />}>
            <Code text={task.rendered.text} language={task.rendered.language} />
          </Suspense>
        </section>
      ) : null}
      <div className="columns">
        <Neighbours title="Depends on" list={task.upstream} />
        <Neighbours title="Needed by" list={task.downstream} />
      </div>
      <section className="stack" style={{ gap: 6 }}>
        <h2>Limits and times</h2>
        <dl className="facts">
          <dt>Limits</dt>
          <dd className="row wrap">
            {task.limits.length === 0 ? <span className="quiet">none</span> : null}
            {task.limits.map((limit) => (
              <Link
                key={limit.name}
                to="/limits"
                search={{ limit: limit.name } as never}
                className="chip"
              >
                {limit.name} × {limit.units}
              </Link>
            ))}
          </dd>
          <dt>Retries</dt>
          <dd>{task.retry_limit ?? "none"}</dd>
          <dt>Time-out</dt>
          <dd>{task.timeout_ms === null ? "none" : `${task.timeout_ms / 1000} s`}</dd>
          <dt>Priority</dt>
          <dd>{task.priority}</dd>
          <dt>Id</dt>
          <dd className="mono">{task.id}</dd>
        </dl>
      </section>
      <section className="stack" style={{ gap: 6 }}>
        <h2>Definition</h2>
        <Value value={task.spec} empty="Nothing more is known of it." />
      </section>
    </div>
  );
}
