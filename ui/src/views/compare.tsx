import { Link } from "@tanstack/react-router";
import { useApi } from "../api/hooks";
import type { Run } from "../api/types";
import { paramsOf } from "../model/params";
import { useAddress } from "../parts/address";
import { Await, Empty, runLabel } from "../parts/basics";
import { CountsBar, State } from "../parts/mark";
import { Exact, Took } from "../parts/time";
import { useTitle } from "../shell/crumbs";

interface Answer {
  runs: Run[];
  outputs: { task: string; key: string; values: unknown[] }[];
}

const text = (value: unknown): string =>
  value === undefined || value === null
    ? "–"
    : typeof value === "string"
      ? value
      : JSON.stringify(value);

/** Runs beside each other: what differs is marked, what is the same steps back. */
export function CompareView() {
  useTitle("Compare runs", [
    { key: "runs", node: <Link to="/runs">Runs</Link> },
    { key: "compare", node: "Compare" },
  ]);
  const [search] = useAddress();
  const answer = useApi<Answer>(search.runs ? "/compare" : null, { runs: search.runs });
  if (!search.runs) {
    return (
      <div className="view">
        <Empty title="No runs to compare">
          <p>Choose two or more in the list of runs, then Compare.</p>
        </Empty>
      </div>
    );
  }
  return (
    <div className="view">
      <Await of={answer} what="the runs">
        {() => (answer.data ? <Comparison data={answer.data} /> : null)}
      </Await>
    </div>
  );
}

function Comparison({ data }: { data: Answer }) {
  const names = [...new Set(data.runs.flatMap((run) => Object.keys(paramsOf(run))))].sort();
  const row = (key: string, label: React.ReactNode, values: unknown[]) => {
    const words = values.map(text);
    const differs = new Set(words).size > 1;
    return (
      <tr key={key} className={differs ? "differs" : "same"}>
        <th scope="row">{label}</th>
        {words.map((word, i) => (
          <td key={i} className={typeof values[i] === "number" ? "end" : undefined}>
            {word}
          </td>
        ))}
      </tr>
    );
  };
  return (
    <div className="card compare">
      <table>
        <thead>
          <tr>
            <td />
            {data.runs.map((run) => (
              <th key={run.id} scope="col">
                <Link to="/runs/$id" params={{ id: run.id }} className="text-link">
                  {run.workflow} <span className="mono">{runLabel(run.id)}</span>
                </Link>
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          <tr>
            <th scope="row">State</th>
            {data.runs.map((run) => (
              <td key={run.id}>
                <State state={run.state} />
              </td>
            ))}
          </tr>
          <tr>
            <th scope="row">Took</th>
            {data.runs.map((run) => (
              <td key={run.id}>
                <Took start={run.started_at} end={run.ended_at} />
              </td>
            ))}
          </tr>
          <tr>
            <th scope="row">Started</th>
            {data.runs.map((run) => (
              <td key={run.id}>
                <Exact at={run.started_at} />
              </td>
            ))}
          </tr>
          <tr>
            <th scope="row">Tasks</th>
            {data.runs.map((run) => (
              <td key={run.id}>
                <CountsBar counts={run.counts} />
              </td>
            ))}
          </tr>
          {row(
            "version",
            "Version",
            data.runs.map((run) => run.version.slice(0, 10)),
          )}
          {names.length > 0 ? (
            <tr className="part">
              <th colSpan={data.runs.length + 1} scope="colgroup">
                Parameters
              </th>
            </tr>
          ) : null}
          {names.map((name) =>
            row(
              `p:${name}`,
              <code>{name}</code>,
              data.runs.map((run) => paramsOf(run)[name]),
            ),
          )}
          {data.outputs.length > 0 ? (
            <tr className="part">
              <th colSpan={data.runs.length + 1} scope="colgroup">
                Outputs
              </th>
            </tr>
          ) : null}
          {data.outputs.map((output) =>
            row(
              `o:${output.task}:${output.key}`,
              <>
                {output.task} <code>{output.key}</code>
              </>,
              output.values,
            ),
          )}
        </tbody>
      </table>
    </div>
  );
}
