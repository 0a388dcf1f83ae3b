import { Link } from "@tanstack/react-router";
import type { WorkflowDetail } from "../../api/types";
import { Empty } from "../../parts/basics";
import { assetPath } from "../assets/path";

export function WorkflowAssets({ workflow }: { workflow: WorkflowDetail }) {
  if (workflow.produces.length + workflow.consumes.length === 0) {
    return (
      <Empty title="It names no asset">
        <p>
          Say what a task makes with <code>produces: [warehouse/orders]</code>; then its health, its
          partitions and what is made from it show here and in the lineage graph.
        </p>
      </Empty>
    );
  }
  const list = (title: string, keys: string[]) => (
    <section className="card">
      <header>
        <h2>{title}</h2>
      </header>
      {keys.map((key) => (
        <Link key={key} to={assetPath(key) as never} className="line mono">
          {key}
        </Link>
      ))}
      {keys.length === 0 ? <p className="line quiet">Nothing.</p> : null}
    </section>
  );
  return (
    <div className="columns">
      {list("Makes", workflow.produces)}
      {list("Reads", workflow.consumes)}
    </div>
  );
}
