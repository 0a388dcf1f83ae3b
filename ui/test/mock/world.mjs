// What happens: events, runs that play themselves, changes by hand.

import { Refused } from "./answer.mjs";
import * as d from "./data.mjs";

export let seq = 48_112;
export const events = [];
export const followers = new Set();

export function emit(event) {
  seq += 1;
  const full = {
    seq,
    at: d.iso(Date.now()),
    kind: "note",
    run: null,
    task: null,
    task_name: null,
    map_index: null,
    workflow: null,
    state: null,
    cause: null,
    attempt: null,
    by: null,
    text: "",
    detail: null,
    ...event,
  };
  events.unshift(full);
  for (const follower of followers) {
    if ((full.kind === "task" || full.kind === "expanded") && follower.run !== full.run) continue;
    follower.send(full);
  }
}
for (let i = 0; i < 3000; i += 1) {
  const run = d.runs[i % d.runs.length];
  seq += 1;
  events.unshift({
    seq,
    at: d.iso(d.NOW - (3000 - i) * 40_000),
    kind: i % 3 === 0 ? "run" : i % 7 === 0 ? "materialized" : "task",
    run: run.id,
    task: i % 3 === 0 ? null : `${run.id}.1`,
    task_name: i % 3 === 0 ? null : "extract",
    map_index: null,
    workflow: run.workflow.name,
    state: i % 3 === 0 ? run.state : "succeeded",
    cause: null,
    attempt: 1,
    by: i % 11 === 0 ? "olena" : null,
    text:
      i % 3 === 0
        ? `run ${run.state}`
        : i % 7 === 0
          ? "warehouse/orders made"
          : "extract succeeded",
    detail: null,
  });
}

export function setTask(run, number, state, more = {}) {
  const id = `${run.id}.${number}`;
  d.overrides.set(id, { ...d.overrides.get(id), state, ...more });
  d.forget(run);
  const view = d.taskView(run, number);
  emit({
    kind: "task",
    run: run.id,
    task: id,
    task_name: view.name,
    map_index: view.map_index,
    workflow: run.workflow.name,
    state,
    attempt: view.attempt,
    text: `${view.path} ${state}`,
  });
}
export function setRun(run, state, more = {}) {
  Object.assign(run, { state }, more);
  emit({ kind: "run", run: run.id, workflow: run.workflow.name, state, text: `run ${state}` });
}

/** Plays a run task by task: what a scheduler would do, only slower and dumber. */
export function play(run, tempo, fails) {
  const { places } = d.layoutOf(run.workflow);
  const numbers = places.flatMap((p) =>
    p.node.mapped ? Array.from({ length: p.node.mapped + 1 }, (_, i) => p.first + i) : [p.first],
  );
  run.timer = setInterval(() => {
    if (run.state === "paused") return;
    const open = numbers.filter(
      (n) => !["succeeded", "failed", "upstream_failed"].includes(d.taskState(run, n)),
    );
    const running = open.filter((n) => d.taskState(run, n) === "running");
    for (const n of running) {
      const place = d.placeOf(run, n);
      const bad = fails && place.node.id === fails;
      setTask(run, n, bad ? "failed" : "succeeded", { ended: Date.now() });
      if (bad) for (const m of open) if (m > n) setTask(run, m, "upstream_failed");
    }
    const next = numbers.find((n) => d.taskState(run, n) === "pending");
    if (next !== undefined)
      setTask(run, next, "running", { started: Date.now(), attempt: 1, ended: null });
    else if (
      running.length === 0 ||
      numbers.every((n) => !["running", "pending"].includes(d.taskState(run, n)))
    ) {
      clearInterval(run.timer);
      const failed = numbers.some((n) => d.taskState(run, n) === "failed");
      setRun(run, failed ? "failed" : "succeeded", {
        ended: Date.now(),
        message: failed ? `${fails} failed` : null,
      });
    }
  }, tempo);
}

export function startRun(w, body) {
  const fields = [];
  const params = { region: "eu", batch_size: 500, ...(body.params ?? {}) };
  if (!["eu", "us", "apac"].includes(params.region))
    fields.push({
      path: "params.region",
      line: null,
      column: null,
      message: "not one of eu, us, apac",
    });
  if (fields.length > 0)
    throw new Refused(
      422,
      "invalid",
      "The parameters do not fit the workflow's schema",
      "Change the marked ones.",
      fields,
    );
  const i = d.runs.length + 1;
  const run = {
    id: `019b${String(i).padStart(4, "0").slice(-4)}-0000-7000-8000-${String(Date.now()).slice(-12).padStart(12, "0")}`,
    index: -i,
    workflow: w,
    state: "running",
    created: Date.now(),
    started: Date.now(),
    ended: null,
    trigger: "manual",
    version: w.versions[0],
    slot: null,
    note: body.note ?? null,
    labels: {},
    generation: 0,
    message: null,
    params,
    live: true,
  };
  d.runs.unshift(run);
  d.runById.set(run.id, run);
  emit({
    kind: "run",
    run: run.id,
    workflow: w.name,
    state: "running",
    text: "run running",
    by: "local",
  });
  play(run, 120, params.full_refresh ? (w.nodes.find((n) => n.kind === "sql")?.id ?? null) : null);
  return run;
}
