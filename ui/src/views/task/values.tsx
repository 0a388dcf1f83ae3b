import { Link } from "@tanstack/react-router";
import { lazy, Suspense } from "react";
import { useApi } from "../../api/hooks";
import type { Neighbour, RenderedTask, TaskDetail } from "../../api/types";
import { useWords } from "../../dialects/context";
import { upper } from "../../dialects/words";
import { totalOf } from "../../model/states";
import { Await, CopyButton, Loading } from "../../parts/basics";
import { CountsBar, Mark } from "../../parts/mark";
import { Value } from "../../parts/value";
import { assetPath } from "../assets/path";

const Code = lazy(() => import("../../parts/code"));

export function ValuesTab({ task }: { task: TaskDetail }) {
  const words = useWords();
  return (
    <div className="stack">
      <section className="stack" style={{ gap: 6 }}>
        <h2>{upper(words.outputs)}</h2>
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
        <h2>{upper(words.inputs)}</h2>
        <Inputs task={task} />
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

const useRendered = (task: TaskDetail) =>
  useApi<RenderedTask>(`/tasks/${task.id}/rendered`, {}, { keep: false });

function Inputs({ task }: { task: TaskDetail }) {
  const rendered = useRendered(task);
  return (
    <Await of={rendered} what="the inputs">
      {() =>
        rendered.data?.problem ? (
          <p className="quiet">They cannot be told: {rendered.data.problem}.</p>
        ) : (
          <Value value={rendered.data?.inputs} empty="It takes no arguments." />
        )
      }
    </Await>
  );
}

/** The command, query or call as it runs: values stand where templates stood. */
function RenderedText({ task }: { task: TaskDetail }) {
  const words = useWords();
  const rendered = useRendered(task);
  const { text, language, problem } = rendered.data ?? {};
  if (rendered.isSuccess && !text && !problem) return null;
  return (
    <section className="stack" style={{ gap: 6 }}>
      <div className="row">
        <h2 className="grow">{upper(words.rendered)}</h2>
        {text ? <CopyButton text={text} label="Copy" /> : null}
      </div>
      <Await of={rendered} what="the text">
        {() =>
          problem ? (
            <p className="quiet">It cannot be filled in: {problem}.</p>
          ) : (
            <Suspense fallback={<Loading what="the editor" />}>
              <Code text={text ?? ""} language={language ?? "text"} />
            </Suspense>
          )
        }
      </Await>
    </section>
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
  const words = useWords();
  return (
    <div className="stack">
      <RenderedText task={task} />
      <div className="columns">
        <Neighbours title="Depends on" list={task.upstream} />
        <Neighbours title="Needed by" list={task.downstream} />
      </div>
      <section className="stack" style={{ gap: 6 }}>
        <h2>{upper(words.limits)} and times</h2>
        <dl className="facts">
          <dt>{upper(words.limits)}</dt>
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
