import { lazy, Suspense } from "react";
import { enc } from "../../api/client";
import { useApi, useList } from "../../api/hooks";
import type { Version, VersionDetail, WorkflowDetail } from "../../api/types";
import { useAddress } from "../../parts/address";
import { Await, CopyButton, Empty, Loading } from "../../parts/basics";
import { Ago } from "../../parts/time";

const Code = lazy(() => import("../../parts/code"));

/** The source of any version, and what changed between two. */
export function CodeTab({ workflow }: { workflow: WorkflowDetail }) {
  const [search, set] = useAddress();
  const base = `/workflows/${enc(workflow.name)}/versions`;
  const versions = useList<Version>(workflow.version ? base : null, {}, 100);
  const shown = search.version ?? workflow.version;
  const against = search.against ?? null;
  const one = useApi<VersionDetail>(shown === workflow.version ? null : `${base}/${shown}`);
  const other = useApi<VersionDetail>(against ? `${base}/${against}` : null, {}, { keep: false });
  const text = shown === workflow.version ? workflow.source : (one.data?.source ?? null);
  const language = shown === workflow.version ? workflow.language : (one.data?.language ?? "yaml");
  return (
    <div className="code-tab">
      <section className="card fill" aria-label="Source">
        <header>
          <span className="mono strong">
            {workflow.error && shown === workflow.version ? "does not parse" : shown.slice(0, 10)}
          </span>
          {against ? (
            <>
              <span className="quiet">
                with what changed since <span className="mono">{against.slice(0, 10)}</span>
              </span>
              <button
                type="button"
                className="button plain"
                onClick={() => set({ against: undefined })}
              >
                Without
              </button>
            </>
          ) : null}
          <span className="grow" />
          {text ? <CopyButton text={text} label="Copy" /> : null}
        </header>
        {text === null ? (
          one.isFetching ? (
            <Loading what="the source" />
          ) : (
            <Empty title="Its source was not kept">
              <p>It was put as a compiled definition; the graph shows what it does.</p>
            </Empty>
          )
        ) : (
          <div className="code-scroll">
            <Suspense fallback={<Loading what="the editor" />}>
              <Code
                text={text}
                language={language}
                against={against ? (other.data?.source ?? null) : null}
                error={shown === workflow.version ? workflow.error : null}
              />
            </Suspense>
          </div>
        )}
      </section>
      {workflow.version ? (
        <section className="card versions" aria-label="Versions">
          <header>
            <h2>Versions</h2>
          </header>
          <Await of={versions} what="the versions">
            <ul>
              {versions.items.map((version, i) => {
                const before = versions.items[i + 1];
                return (
                  <li key={version.version} className="line">
                    <button
                      type="button"
                      className="link-button mono"
                      aria-pressed={version.version === shown}
                      onClick={() => set({ version: version.version, against: undefined })}
                    >
                      {version.version.slice(0, 7)}
                    </button>
                    <span className="quiet grow">
                      <Ago at={version.created_at} />
                      {version.current ? ", in force" : ""}
                    </span>
                    {before ? (
                      <button
                        type="button"
                        className="button plain"
                        onClick={() => set({ version: version.version, against: before.version })}
                      >
                        Changes
                      </button>
                    ) : null}
                  </li>
                );
              })}
            </ul>
          </Await>
        </section>
      ) : null}
    </div>
  );
}
