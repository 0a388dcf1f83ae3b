import { useState } from "react";
import { TaskActionDialog, type TaskActionKind } from "../../act/tasks";
import { useApi } from "../../api/hooks";
import type { Graph, Run } from "../../api/types";
import { formatCount } from "../../model/duration";
import { totalOf } from "../../model/states";
import { SidePanel } from "../../parts/basics";
import { CountsBar, State } from "../../parts/mark";
import { RunTasks } from "./run-tasks";

/** A group or a mapped task of a run: its tasks, and what can be done with all of them. */
export function NodePanel({
  run,
  path,
  onClose,
  onOpenTask,
}: {
  run: Run;
  path: string;
  onClose: () => void;
  onOpenTask: (task: string) => void;
}) {
  const graph = useApi<Graph>(`/runs/${run.id}/graph`);
  const [action, setAction] = useState<TaskActionKind | null>(null);
  const node = graph.data?.nodes.find((n) => n.id === path);
  return (
    <SidePanel
      label={`Node ${path}`}
      onClose={onClose}
      bare
      head={
        <h2 className="cut" dir="auto">
          {path}
        </h2>
      }
    >
      <div className="side-fill">
        {node ? (
          <div className="page-head">
            <div className="row wrap">
              {node.state ? <State state={node.state} /> : null}
              <span className="quiet">
                {formatCount(node.total || totalOf(node.counts))}{" "}
                {node.group ? "tasks" : "instances"}
              </span>
              <CountsBar counts={node.counts} width={140} />
              <span className="grow" />
              <button type="button" className="button" onClick={() => setAction("clear")}>
                Rerun…
              </button>
              <button type="button" className="button" onClick={() => setAction("mark")}>
                Mark…
              </button>
            </div>
            {node.message ? <p className="quiet">{node.message}</p> : null}
          </div>
        ) : null}
        <div className="tab-body">
          <RunTasks
            run={{ ...run, counts: node?.counts ?? run.counts }}
            node={path}
            onOpen={onOpenTask}
          />
        </div>
      </div>
      {action ? (
        <TaskActionDialog
          action={action}
          target={{ run: run.id, nodes: [path] }}
          onClose={() => setAction(null)}
        />
      ) : null}
    </SidePanel>
  );
}
