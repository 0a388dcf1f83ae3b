// A task: its attempts, log, reasons, values. The same in its own page and in the side panel.

import { Link } from "@tanstack/react-router";
import { useState } from "react";
import { ApproveForm } from "../../act/approve";
import { TaskActionDialog, type TaskActionKind } from "../../act/tasks";
import { useList } from "../../api/hooks";
import type { Attempt, TaskDetail } from "../../api/types";
import { useStateWord, useWords } from "../../dialects/context";
import { upper } from "../../dialects/words";
import { LogView } from "../../log/log-view";
import { isFinished } from "../../model/states";
import { useAddress } from "../../parts/address";
import { Await, Menu } from "../../parts/basics";
import { Mark, State } from "../../parts/mark";
import { Tabs } from "../../parts/tabs";
import { Ago, Exact, Took } from "../../parts/time";
import { useKeys } from "../../shell/keys";
import { Artifacts } from "../artifacts";
import { EventList } from "../event-list";
import { DetailTab, ValuesTab } from "./values";
import { WhyPanel } from "./why";

export function taskTitle(task: { path: string; name: string; map_index: number | null }): string {
  return `${task.path || task.name}${task.map_index === null ? "" : ` [${task.map_index}]`}`;
}

/** `prefix` keeps the panel's own address words apart from those of the page behind it. */
export function TaskBody({ task, panel = false }: { task: TaskDetail; panel?: boolean }) {
  const [search, set] = useAddress();
  const [action, setAction] = useState<TaskActionKind | null>(null);
  const words = useWords();
  const finished = isFinished(task.state);
  const never = task.attempt === 0;
  const tabKey = panel ? "pane" : "tab";
  const tab = search[tabKey] ?? (never || task.kind === "suspend" ? "why" : "log");
  useKeys("Task", [
    { keys: "shift+c", word: `${words.rerun} this ${words.task}`, run: () => setAction("clear") },
    { keys: "shift+s", word: "Mark it", run: () => setAction("mark") },
    { keys: "l", word: "Log", run: () => set({ [tabKey]: "log" }) },
    { keys: "y", word: "Why it is so", run: () => set({ [tabKey]: "why" }) },
  ]);
  return (
    <>
      <div className="page-head">
        <div className="row wrap">
          <State state={task.state} />
          {panel ? null : (
            <h1 className="cut" dir="auto">
              {taskTitle(task)}
            </h1>
          )}
          {task.label ? <span className="chip">{task.label}</span> : null}
          <span className="chip">{task.kind}</span>
          <span className="grow" />
          {finished ? (
            <button type="button" className="button" onClick={() => setAction("clear")}>
              {words.rerun}…
            </button>
          ) : (
            <button type="button" className="button" onClick={() => setAction("cancel")}>
              Cancel…
            </button>
          )}
          <Menu label="More actions" button="More">
            <button type="button" onClick={() => setAction("clear")}>
              {words.rerun}…
            </button>
            <button type="button" onClick={() => setAction("mark")}>
              Mark as…
            </button>
            <button type="button" disabled={finished} onClick={() => setAction("cancel")}>
              Cancel…
            </button>
            <hr />
            <Link to="/runs/$id" params={{ id: task.run }} search={{ node: task.path } as never}>
              Show in the run
            </Link>
            <Link to="/workflows/$name" params={{ name: task.workflow }}>
              Its workflow
            </Link>
          </Menu>
        </div>
        <div className="row wrap quiet" style={{ gap: "2px 16px" }}>
          <span>
            took <Took start={task.started_at} end={task.ended_at} running={!finished} />
          </span>
          {task.started_at ? (
            <span>
              started <Exact at={task.started_at} />
            </span>
          ) : (
            <span>
              created <Ago at={task.created_at} />
            </span>
          )}
          {task.due_at && !finished ? (
            <span>
              wakes <Ago at={task.due_at} />
            </span>
          ) : null}
          {task.attempt > 0 ? (
            <span>
              {words.attempt} {task.attempt}
              {task.retry_limit ? ` of ${task.retry_limit + 1}` : ""}
            </span>
          ) : null}
          {task.exit_code === null ? null : <span>exit code {task.exit_code}</span>}
        </div>
        {task.message ? (
          <div className={`problem${task.state === "failed" ? "" : " mild"}`}>
            <Mark state={task.state} />
            <div className="grow pre-line">{task.message}</div>
          </div>
        ) : null}
        {task.approval && task.state === "suspended" ? (
          <ApproveForm task={task} approval={task.approval} />
        ) : null}
      </div>
      <Tabs
        param={tabKey}
        value={tab}
        items={[
          ["log", "Log"],
          ["why", finished ? "Why" : "Why it waits"],
          ["values", upper(words.values)],
          ["artifacts", "Artifacts"],
          ["detail", "Definition"],
          ["events", "Events"],
        ]}
      />
      <div className={`tab-body${tab === "log" ? " flush" : ""}`}>
        {tab === "log" ? <AttemptLogs task={task} /> : null}
        {tab === "why" ? <WhyPanel task={task} /> : null}
        {tab === "values" ? <ValuesTab task={task} /> : null}
        {tab === "artifacts" ? <Artifacts path={`/tasks/${task.id}/artifacts`} /> : null}
        {tab === "detail" ? <DetailTab task={task} /> : null}
        {tab === "events" ? <EventList query={{ run: task.run, task: task.id }} /> : null}
      </div>
      {action ? (
        <TaskActionDialog
          action={action}
          target={{ ids: [task.id] }}
          onClose={() => setAction(null)}
        />
      ) : null}
    </>
  );
}

function AttemptLogs({ task }: { task: TaskDetail }) {
  const words = useWords();
  const wordOf = useStateWord();
  const [search, set] = useAddress();
  const list = useList<Attempt>(`/tasks/${task.id}/attempts`, {}, 200);
  return (
    <Await of={list} what="the attempts">
      {() => {
        const attempts = list.items;
        const wanted = Number(search.attempt);
        const shown = attempts.find((a) => a.attempt === wanted) ?? attempts.at(-1);
        if (!shown) {
          return (
            <div className="empty">
              <h2>It has not been started</h2>
              <p>
                A log begins with the first attempt.{" "}
                <button
                  type="button"
                  className="button"
                  onClick={() => set({ tab: "why", pane: "why" })}
                >
                  Why it waits
                </button>
              </p>
            </div>
          );
        }
        return (
          <div className="card fill" style={{ display: "flex", flexDirection: "column" }}>
            {attempts.length > 1 ? (
              <div className="attempts">
                {attempts.map((a) => (
                  <button
                    key={`${a.attempt}.${a.launch}`}
                    type="button"
                    className="chip"
                    aria-pressed={a === shown}
                    title={`${wordOf(a.state)}${a.message ? `: ${a.message}` : ""}`}
                    onClick={() => set({ attempt: String(a.attempt) })}
                  >
                    <Mark state={a.state} title={wordOf(a.state)} /> {upper(words.attempt)}{" "}
                    {a.attempt}
                    <span className="quiet">
                      <Took start={a.started_at} end={a.ended_at} />
                    </span>
                  </button>
                ))}
              </div>
            ) : null}
            <LogView
              key={`${task.id}/${shown.attempt}/${shown.launch}`}
              task={task.id}
              attempt={shown.attempt}
              state={shown.state}
            />
          </div>
        );
      }}
    </Await>
  );
}
