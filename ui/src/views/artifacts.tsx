import { lazy, Suspense } from "react";
import { apiUrl } from "../api/client";
import { useApi, useList } from "../api/hooks";
import type { Artifact, Preview } from "../api/types";
import { formatBytes, formatCount } from "../model/duration";
import { useAddress } from "../parts/address";
import { Await, Empty, Loading } from "../parts/basics";
import { Plot } from "../parts/plot";
import { Ago } from "../parts/time";
import { Value } from "../parts/value";

const Markdown = lazy(() => import("../parts/markdown"));

const address = (artifact: Artifact) => `${artifact.task}/${artifact.id}`;

/** A list of artifacts; the chosen one is previewed beside it. */
export function Artifacts({ path }: { path: string }) {
  const [search, set] = useAddress();
  const list = useList<Artifact>(path, {}, 100);
  return (
    <Await of={list} what="the artifacts">
      {() => {
        if (list.items.length === 0) return <NoArtifact />;
        const shown = list.items.find((a) => address(a) === search.artifact) ?? list.items[0];
        return (
          <div className="artifacts">
            <ul className="card artifact-list">
              {list.items.map((artifact) => (
                <li key={address(artifact)}>
                  <button
                    type="button"
                    className="line"
                    aria-pressed={artifact === shown}
                    onClick={() => set({ artifact: address(artifact) })}
                  >
                    <span className="grow cut">
                      <span className="strong">{artifact.name}</span>
                      <span className="quiet"> {artifact.task_name}</span>
                    </span>
                    <span className="quiet nowrap">
                      {artifact.size === null ? "note" : formatBytes(artifact.size)}
                    </span>
                  </button>
                </li>
              ))}
              {list.hasNextPage ? (
                <li>
                  <button
                    type="button"
                    className="line"
                    disabled={list.isFetchingNextPage}
                    onClick={() => void list.fetchNextPage()}
                  >
                    More…
                  </button>
                </li>
              ) : null}
            </ul>
            {shown ? <ArtifactPreview artifact={shown} /> : null}
          </div>
        );
      }}
    </Await>
  );
}

function NoArtifact() {
  return (
    <Empty title="No artifact">
      <p>
        Data frames, arrays and files that a Python task returns show here with a preview, and what
        it notes: <code>kobza.notes.markdown</code>, <code>table</code>, <code>image</code>,{" "}
        <code>metric</code>, <code>plot</code>.
      </p>
    </Empty>
  );
}

function ArtifactPreview({ artifact }: { artifact: Artifact }) {
  const place = `/tasks/${artifact.task}/artifacts/${artifact.id}`;
  const content = apiUrl(`${place}/content`);
  const framed = artifact.preview === "html" || artifact.media_type === "image/svg+xml";
  const image = artifact.preview === "image" && !framed;
  const wanted = artifact.preview !== null && !framed && !image;
  const preview = useApi<Preview>(wanted ? `${place}/preview` : null, {}, { keep: false });
  return (
    <section className="card artifact-preview" aria-label={`Preview of ${artifact.name}`}>
      <header>
        <h2 className="grow cut" dir="auto">
          {artifact.name}
        </h2>
        <span className="quiet wide-only">{artifact.media_type}</span>
        <span className="quiet wide-only">
          {artifact.created_at ? <Ago at={artifact.created_at} /> : null}
        </span>
        <a className="button" href={apiUrl(`${place}/content`, { download: 1 })} download>
          Download
        </a>
      </header>
      {framed ? (
        // What a task wrote never runs with the page's rights: no script, no origin.
        // A frame of its own for each: another address in the same one would be a step back.
        <iframe
          key={content}
          title={artifact.name}
          sandbox=""
          src={content}
          className="artifact-frame"
        />
      ) : image ? (
        <div className="body">
          <img src={content} alt={artifact.name} className="artifact-image" />
        </div>
      ) : artifact.preview === null ? (
        <Empty title="No preview for this kind">
          <p>{artifact.media_type}: download it to look inside.</p>
        </Empty>
      ) : (
        <Await of={preview} what="the preview">
          {() => (preview.data ? <PreviewBody preview={preview.data} /> : null)}
        </Await>
      )}
    </section>
  );
}

function PreviewBody({ preview }: { preview: Preview }) {
  switch (preview.kind) {
    case "table":
      return (
        <section
          className="preview-table"
          aria-label="Rows"
          // biome-ignore lint/a11y/noNoninteractiveTabindex: a scrolled region is reached by keyboard
          tabIndex={0}
        >
          <table>
            <thead>
              <tr>
                {preview.columns.map((column) => (
                  <th key={column.name} scope="col">
                    {column.name} <span className="quiet">{column.type}</span>
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {preview.rows.map((row, i) => (
                <tr key={i}>
                  {row.map((cell, j) => (
                    <td key={j} className={typeof cell === "number" ? "end" : undefined}>
                      {cell === null ? (
                        <span className="quiet">null</span>
                      ) : typeof cell === "object" ? (
                        JSON.stringify(cell)
                      ) : (
                        String(cell)
                      )}
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
          <p className="quiet small" style={{ padding: "6px 10px" }}>
            {preview.total_rows === null
              ? `the first ${formatCount(preview.rows.length)} rows`
              : preview.total_rows === preview.rows.length
                ? `${formatCount(preview.rows.length)} rows`
                : `${formatCount(preview.rows.length)} of ${formatCount(preview.total_rows)} rows`}
          </p>
        </section>
      );
    case "plot":
      return <div className="body">{preview.plot ? <Plot value={preview.plot} /> : null}</div>;
    case "markdown":
      return (
        <div className="body">
          <Suspense fallback={<Loading what="the text" />}>
            <Markdown text={preview.text ?? ""} />
          </Suspense>
        </div>
      );
    case "json":
      return (
        <div className="body">
          <Value value={preview.value ?? preview.text} />
        </div>
      );
    default:
      return (
        <div className="body">
          <pre className="wrap-text">{preview.text}</pre>
          {preview.truncated ? (
            <p className="quiet small">Cut here; the download is whole.</p>
          ) : null}
        </div>
      );
  }
}
