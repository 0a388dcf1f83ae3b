import { useState } from "react";
import { asCommand } from "../../act/schema";
import { request } from "../../api/client";
import { useAction } from "../../api/hooks";
import type { Run } from "../../api/types";
import { useWords } from "../../dialects/context";
import { upper } from "../../dialects/words";
import { paramsOf } from "../../model/params";
import { CopyButton } from "../../parts/basics";
import { Exact } from "../../parts/time";
import { Value } from "../../parts/value";

export function RunDetails({ run }: { run: Run }) {
  const words = useWords();
  const [note, setNote] = useState(run.note ?? "");
  const save = useAction<Run>({
    run: (_, key) =>
      request(`/runs/${run.id}`, {
        method: "PATCH",
        body: { note: note || null },
        idempotencyKey: key,
      }),
    touches: ["/runs"],
    done: "Note kept",
  });
  return (
    <div className="columns">
      <section className="card">
        <header>
          <h2 className="grow">{upper(words.params)}</h2>
          <CopyButton text={asCommand(run.workflow, paramsOf(run))} label="Copy as command" />
        </header>
        <div className="body">
          {Object.keys(paramsOf(run)).length > 0 ? (
            <dl className="facts">
              {Object.entries(paramsOf(run)).map(([key, value]) => (
                <div key={key} style={{ display: "contents" }}>
                  <dt className="mono">{key}</dt>
                  <dd>
                    <Value value={value} />
                  </dd>
                </div>
              ))}
            </dl>
          ) : (
            <p className="quiet">It was started without {words.params}.</p>
          )}
        </div>
      </section>
      <section className="card">
        <header>
          <h2>Note</h2>
        </header>
        <form
          className="body stack"
          onSubmit={(event) => {
            event.preventDefault();
            save.mutate();
          }}
        >
          <textarea
            className="input"
            aria-label="Note"
            rows={4}
            maxLength={4000}
            placeholder="What was found, what was done: the next person reads it here"
            value={note}
            onChange={(event) => setNote(event.target.value)}
          />
          <div>
            <button
              type="submit"
              className="button"
              disabled={save.isPending || note === (run.note ?? "")}
            >
              Keep the note
            </button>
          </div>
        </form>
      </section>
      <section className="card">
        <header>
          <h2>About</h2>
        </header>
        <dl className="facts body">
          <dt>Id</dt>
          <dd className="mono">{run.id}</dd>
          <dt>Version</dt>
          <dd className="mono">{run.version}</dd>
          <dt>Dialect</dt>
          <dd>{run.dialect}</dd>
          <dt>Key</dt>
          <dd className="mono">{run.key ?? "–"}</dd>
          <dt>Created</dt>
          <dd>
            <Exact at={run.created_at} />
          </dd>
          <dt>Started</dt>
          <dd>
            <Exact at={run.started_at} />
          </dd>
          <dt>Ended</dt>
          <dd>
            <Exact at={run.ended_at} />
          </dd>
          <dt>Priority</dt>
          <dd>{run.priority}</dd>
          <dt>Labels</dt>
          <dd className="row wrap">
            {Object.entries(run.labels ?? {}).map(([key, value]) => (
              <span key={key} className="chip mono">
                {key}={String(value)}
              </span>
            ))}
            {Object.keys(run.labels ?? {}).length === 0 ? "–" : null}
          </dd>
        </dl>
      </section>
    </div>
  );
}
