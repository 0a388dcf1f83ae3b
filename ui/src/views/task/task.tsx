import { Link, useParams } from "@tanstack/react-router";
import { useApi } from "../../api/hooks";
import type { Run, TaskDetail } from "../../api/types";
import { Dialect } from "../../dialects/context";
import { Await, runLabel } from "../../parts/basics";
import { useTitle } from "../../shell/crumbs";
import { useWatchedRun } from "../run/watch";
import { TaskBody, taskTitle } from "./task-body";

export function TaskView() {
  const { id } = useParams({ strict: false }) as { id: string };
  const task = useApi<TaskDetail>(`/tasks/${id}`, {}, { keep: false });
  useWatchedRun(task.data?.run ?? null);
  const run = useApi<Run>(task.data ? `/runs/${task.data.run}` : null);
  const data = task.data;
  useTitle(data ? taskTitle(data) : "Task", [
    { key: "runs", node: <Link to="/runs">Runs</Link> },
    ...(data
      ? [
          {
            key: data.workflow,
            node: (
              <Link to="/workflows/$name" params={{ name: data.workflow }}>
                {data.workflow}
              </Link>
            ),
          },
          {
            key: data.run,
            node: (
              <Link to="/runs/$id" params={{ id: data.run }} className="mono">
                {runLabel(data.run)}
              </Link>
            ),
          },
        ]
      : []),
    { key: `task ${data ? taskTitle(data) : ""}`, node: data ? taskTitle(data) : "Task" },
  ]);
  return (
    <div className="view fixed">
      <Await of={task} what="the task">
        {() =>
          data ? (
            <Dialect of={run.data?.dialect}>
              <TaskBody task={data} />
            </Dialect>
          ) : null
        }
      </Await>
    </div>
  );
}
