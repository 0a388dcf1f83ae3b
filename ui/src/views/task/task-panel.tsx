import { Link } from "@tanstack/react-router";
import { Maximize2 } from "lucide-react";
import { useApi } from "../../api/hooks";
import type { TaskDetail } from "../../api/types";
import { Await, SidePanel } from "../../parts/basics";
import { TaskBody, taskTitle } from "./task-body";

/** The task in a panel over the page that it was opened from. */
export default function TaskPanel({ id, onClose }: { id: string; onClose: () => void }) {
  const task = useApi<TaskDetail>(`/tasks/${id}`, {}, { keep: false });
  const data = task.data;
  const title = data ? taskTitle(data) : "Task";
  return (
    <SidePanel
      label={`Task ${title}`}
      onClose={onClose}
      bare
      head={
        <>
          <h2 className="cut" dir="auto">
            {title}
          </h2>
          <span className="grow" />
          <Link
            to="/tasks/$id"
            params={{ id }}
            className="button plain square"
            aria-label="Open as a page"
            title="Open as a page"
          >
            <Maximize2 size={15} />
          </Link>
        </>
      }
    >
      <div className="side-fill">
        <Await of={task} what="the task">
          {() => (data ? <TaskBody task={data} panel /> : null)}
        </Await>
      </div>
    </SidePanel>
  );
}
