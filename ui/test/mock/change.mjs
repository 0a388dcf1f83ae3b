// Bulk changes of tasks, with their preview.

import * as d from "./data.mjs";
import { findRun, findTask, taskNumbers } from "./views.mjs";
import { emit, play, setRun, setTask } from "./world.mjs";

export function bulkTasks(body) {
  let ids = body.ids ?? [];
  if (body.run) {
    const run = findRun(body.run);
    const q = new URLSearchParams(body.nodes?.[0] ? { node: body.nodes[0] } : {});
    ids = [];
    for (const n of taskNumbers(run, q)) {
      if (body.states && !body.states.includes(d.taskState(run, n))) continue;
      ids.push(`${run.id}.${n}`);
    }
  }
  const open = new Set([
    "running",
    "queued",
    "ready",
    "pending",
    "retry_wait",
    "suspended",
    "rescheduled",
    "deferred",
  ]);
  const chosen = new Map();
  const refused = [];
  for (const id of ids) {
    const task = findTask(id);
    const s = task.view.state;
    if (body.action === "clear" && body.only_failed && !["failed", "upstream_failed"].includes(s))
      continue;
    if (body.action === "cancel" && !open.has(s)) {
      refused.push({ id, message: `${task.view.path} is ${s} already` });
      continue;
    }
    if (body.action === "clear" && open.has(s)) {
      refused.push({ id, message: `${task.view.path} is ${s}: it runs anyway` });
      continue;
    }
    chosen.set(id, task);
    if (body.action === "clear" && body.downstream && chosen.size < 500) {
      const below = new Set([task.view.path]);
      for (const n of task.run.workflow.nodes)
        if (n.needs.some((u) => below.has(u))) below.add(n.id);
      for (const place of d.layoutOf(task.run.workflow).places) {
        if (place.node.id === task.view.path || !below.has(place.node.id)) continue;
        for (let k = 0; k <= (place.node.mapped ?? 0); k += 1) {
          if (place.node.mapped && k === 0) continue;
          const other = findTask(`${task.run.id}.${place.first + k}`);
          if (!open.has(other.view.state)) chosen.set(other.view.id, other);
        }
      }
    }
  }
  const becomes =
    body.action === "clear" ? "pending" : body.action === "mark" ? body.state : "cancelled";
  const touchedRuns = [...new Set([...chosen.values()].map((t) => t.run))];
  const answer = {
    count: chosen.size,
    items: [...chosen.values()].slice(0, 200).map((t) => ({ ...t.view, becomes })),
    truncated: chosen.size > 200,
    refused: refused.slice(0, 50),
    runs:
      body.action === "clear"
        ? touchedRuns
            .filter((r) => r.ended)
            .map((r) => ({
              id: r.id,
              workflow: r.workflow.name,
              state: r.state,
              becomes: "running",
            }))
        : [],
  };
  if (!body.dry_run) {
    for (const t of chosen.values())
      setTask(
        t.run,
        t.number,
        becomes,
        becomes === "pending" ? { started: undefined, ended: undefined } : { ended: Date.now() },
      );
    emit({
      kind: body.action === "mark" ? "marked" : "cleared",
      run: touchedRuns[0]?.id ?? null,
      workflow: touchedRuns[0]?.workflow.name ?? null,
      by: "local",
      text: `${chosen.size} tasks ${becomes}`,
    });
    if (body.action === "clear") {
      for (const run of touchedRuns) {
        run.generation += 1;
        setRun(run, "running", { ended: null, message: null });
        clearInterval(run.timer);
        play(run, 120, null);
      }
    }
  }
  return answer;
}
