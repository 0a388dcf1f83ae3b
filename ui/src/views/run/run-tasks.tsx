import { useEffect, useState } from "react";
import { TaskActionDialog, type TaskActionKind } from "../../act/tasks";
import { useList } from "../../api/hooks";
import type { Run, Task } from "../../api/types";
import { useStateWord, useWords } from "../../dialects/context";
import { upper } from "../../dialects/words";
import { formatCount, plural } from "../../model/duration";
import { orderedCounts } from "../../model/states";
import { listOf, toggled, useAddress } from "../../parts/address";
import { Await, Empty, Menu, SearchField } from "../../parts/basics";
import { Mark, State } from "../../parts/mark";
import { type Column, Table } from "../../parts/table";
import { Ago, Took } from "../../parts/time";

/** Every task of a run, or of one node of it. */
export function RunTasks({
  run,
  node,
  onOpen,
}: {
  run: Run;
  node?: string;
  onOpen: (task: string) => void;
}) {
  const [search, set] = useAddress();
  const words = useWords();
  const wordOf = useStateWord();
  const [chosen, setChosen] = useState<Set<string>>(new Set());
  const [action, setAction] = useState<TaskActionKind | null>(null);
  const query = { state: search.state, q: search.q, node, sort: search.sort };
  const list = useList<Task>(`/runs/${run.id}/tasks`, query, 200);
  const states = listOf(search.state);
  const signature = JSON.stringify(query);
  // biome-ignore lint/correctness/useExhaustiveDependencies: another list, another choice
  useEffect(() => setChosen(new Set()), [signature]);
  const columns: Column<Task>[] = [
    {
      key: "state",
      head: "State",
      sort: "state",
      width: "124px",
      cell: (t) => <State state={t.state} />,
    },
    {
      key: "task",
      head: upper(words.task),
      sort: "task",
      width: "minmax(120px, 1.4fr)",
      cell: (t) => (
        <span className="row">
          <button
            type="button"
            className="link-button cut strong"
            dir="auto"
            onClick={() => onOpen(t.id)}
          >
            {t.path || t.name}
            {t.map_index === null ? "" : ` [${t.map_index}]`}
          </button>
          {t.label ? <span className="quiet cut">{t.label}</span> : null}
          {t.summary ? <span className="chip">all instances</span> : null}
        </span>
      ),
    },
    {
      key: "kind",
      head: "Kind",
      wide: true,
      width: "72px",
      cell: (t) => <span className="quiet">{t.kind}</span>,
    },
    {
      key: "attempt",
      head: upper(words.attempt.split(" ")[0] ?? ""),
      wide: true,
      width: "58px",
      end: true,
      cell: (t) => (t.attempt === 0 ? <span className="quiet">–</span> : t.attempt),
    },
    {
      key: "started",
      head: "Started",
      sort: "started_at",
      wide: true,
      width: "84px",
      cell: (t) => <Ago at={t.started_at} />,
    },
    {
      key: "took",
      head: "Took",
      sort: "duration",
      width: "88px",
      end: true,
      cell: (t) => <Took start={t.started_at} end={t.ended_at} running={t.state === "running"} />,
    },
    {
      key: "message",
      head: "Message",
      wide: true,
      width: "minmax(0, 1.4fr)",
      cell: (t) => (
        <span className="quiet" title={t.message ?? undefined}>
          {t.message}
        </span>
      ),
    },
  ];
  const ids = [...chosen];
  const filtered = Boolean(search.state || search.q);
  return (
    <>
      <div className="filters">
        <SearchField
          label="Name or index"
          value={search.q ?? ""}
          onChange={(q) => set({ q })}
          width={170}
        />
        {orderedCounts(run.counts).map(([state, n]) => (
          <button
            key={state}
            type="button"
            className="chip"
            aria-pressed={states.includes(state)}
            onClick={() => set({ state: toggled(search.state, state) })}
          >
            <Mark state={state} /> {wordOf(state)} <span className="quiet">{formatCount(n)}</span>
          </button>
        ))}
        <span className="grow" />
        {list.total === undefined ? null : (
          <span className="quiet">{plural(list.total, "task")}</span>
        )}
        <Menu
          label="Do something with tasks"
          button={ids.length > 0 ? `${ids.length} chosen…` : "Do…"}
        >
          {(["clear", "mark", "cancel"] as const).map((kind) => (
            <button
              key={kind}
              type="button"
              disabled={ids.length === 0 && (states.length === 0 || Boolean(search.q))}
              title={ids.length === 0 && search.q ? "choose tasks first" : undefined}
              onClick={() => setAction(kind)}
            >
              {kind === "clear" ? words.rerun : kind === "mark" ? "Mark" : "Cancel"}{" "}
              {ids.length > 0 ? `${ids.length} chosen` : "all of these states"}…
            </button>
          ))}
        </Menu>
      </div>
      <Await of={list} what="the tasks">
        <div className="card fill">
          <Table
            label="Tasks"
            columns={columns}
            rows={list.items}
            rowKey={(t) => t.id}
            rowHeight={32}
            more={list}
            chosen={search.task ?? null}
            sort={search.sort ?? "task"}
            onSort={(sort) => set({ sort })}
            selection={{ ids: chosen, set: setChosen }}
            onOpen={(t) => onOpen(t.id)}
            empty={
              <Empty title={filtered ? "No task matches the filters" : "No task yet"}>
                {filtered ? (
                  <button
                    type="button"
                    className="button"
                    onClick={() => set({ state: undefined, q: undefined })}
                  >
                    Clear filters
                  </button>
                ) : null}
              </Empty>
            }
          />
        </div>
      </Await>
      {action ? (
        <TaskActionDialog
          action={action}
          target={
            ids.length > 0
              ? { ids }
              : {
                  run: run.id,
                  ...(node ? { nodes: [node] } : {}),
                  ...(states.length > 0 ? { states } : {}),
                }
          }
          onClose={() => setAction(null)}
        />
      ) : null}
    </>
  );
}
