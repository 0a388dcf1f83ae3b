// The API's contract over the busy store, for the tests of the pages. Writes change what is read
// afterwards and send events, so that live views can be tested.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import * as d from "./data.mjs";

const json = (res, status, body) => {
  const text = JSON.stringify(body);
  res.writeHead(status, { "content-type": "application/json" });
  res.end(text);
};
class Refused extends Error {
  constructor(status, code, message, hint = null, fields = []) {
    super(message);
    Object.assign(this, { status, code, hint, fields });
  }
}
const missing = (what) =>
  new Refused(404, "not_found", `${what} does not exist`, "It may have been deleted.");

function page(list, q, view = (x) => x, standard = 50) {
  const limit = Math.min(1000, Number(q.get("limit")) || standard);
  const from = Number(q.get("cursor")) || 0;
  return {
    items: list.slice(from, from + limit).map(view),
    next: from + limit < list.length ? String(from + limit) : null,
    total: list.length,
  };
}
const words = (text) => (text ? text.split(",") : null);
const has = (text, q) => !q || text.toLowerCase().includes(q.toLowerCase());

// ---- events -------------------------------------------------------------------------------
let seq = 48_112;
const events = [];
const followers = new Set();

function emit(event) {
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

function setTask(run, number, state, more = {}) {
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
function setRun(run, state, more = {}) {
  Object.assign(run, { state }, more);
  emit({ kind: "run", run: run.id, workflow: run.workflow.name, state, text: `run ${state}` });
}

/** Plays a run task by task: what a scheduler would do, only slower and dumber. */
function play(run, tempo, fails) {
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

function startRun(w, body) {
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

// ---- reading ------------------------------------------------------------------------------
const findRun = (id) =>
  d.runById.get(id) ??
  (() => {
    throw missing(`run ${id}`);
  })();
const findWorkflow = (name) =>
  d.byName.get(name) ??
  (() => {
    throw missing(`workflow ${name}`);
  })();
function findTask(id) {
  const dot = id.lastIndexOf(".");
  const run = findRun(id.slice(0, dot));
  const view = d.taskView(run, Number(id.slice(dot + 1)));
  if (!view) throw missing(`task ${id}`);
  return { run, number: Number(id.slice(dot + 1)), view };
}

const worstOf = (counts) => {
  const order = [
    "failed",
    "upstream_failed",
    "suspended",
    "retry_wait",
    "running",
    "queued",
    "ready",
    "rescheduled",
    "pending",
    "cancelled",
    "succeeded",
    "skipped",
  ];
  return order.find((s) => counts[s]) ?? null;
};

function graph(w, run) {
  const counts = run ? d.runCounts(run).nodes : null;
  const places = new Map(d.layoutOf(w).places.map((p) => [p.node.id, p]));
  const nodes = w.nodes.map((n) => {
    const inside = n.kind === "group" ? w.leaves.filter((l) => l.id.startsWith(`${n.id}/`)) : [n];
    const sum = {};
    if (counts)
      for (const l of inside)
        for (const [s, c] of Object.entries(counts.get(l.id))) sum[s] = (sum[s] ?? 0) + c;
    const place = places.get(n.id);
    const times = run && place ? d.taskTimes(run, place.first) : null;
    return {
      id: n.id,
      name: n.id.split("/").at(-1),
      kind: n.kind,
      parent: n.id.includes("/") ? n.id.split("/")[0] : null,
      group: n.kind === "group",
      mapped: Boolean(n.mapped),
      state: run ? worstOf(sum) : null,
      counts: sum,
      total: n.mapped ?? inside.length,
      task: run && place && !n.mapped ? `${run.id}.${place.first}` : null,
      attempt: 1,
      started_at: d.iso(times?.started ?? null),
      ended_at: d.iso(times?.ended ?? null),
      message: null,
      gate: "all_success",
      condition: null,
    };
  });
  const edges = w.nodes.flatMap((n) => n.needs.map((from) => ({ from, to: n.id, class: "data" })));
  return { nodes, edges, seq };
}

function filterRuns(q) {
  const states = words(q.get("state"));
  const since = q.get("since") ? Date.parse(q.get("since")) : null;
  const until = q.get("until") ? Date.parse(q.get("until")) : null;
  let list = q.get("workflow")
    ? d.runs.filter((r) => r.workflow.name === q.get("workflow"))
    : d.runs;
  if (states) list = list.filter((r) => states.includes(r.state));
  if (q.get("trigger")) list = list.filter((r) => r.trigger === q.get("trigger"));
  if (q.get("q"))
    list = list.filter(
      (r) =>
        has(r.workflow.name, q.get("q")) ||
        r.id.startsWith(q.get("q")) ||
        r.id.endsWith(q.get("q")),
    );
  if (since !== null) list = list.filter((r) => r.created >= since);
  if (until !== null) list = list.filter((r) => r.created <= until);
  const sort = q.get("sort") ?? "-created_at";
  const by = sort.endsWith("duration")
    ? (r) => (r.ended ?? Date.now()) - (r.started ?? Date.now())
    : (r) => r.created;
  if (sort !== "-created_at")
    list = [...list].sort((a, b) => (sort.startsWith("-") ? by(b) - by(a) : by(a) - by(b)));
  return list;
}

function grid(w, q) {
  const limit = Number(q.get("limit")) || 50;
  const from = Number(q.get("cursor")) || 0;
  const all = d.runsOfWorkflow(w);
  const shown = all.slice(from, from + limit).reverse();
  const states = [
    "pending",
    "ready",
    "queued",
    "running",
    "retry_wait",
    "deferred",
    "rescheduled",
    "suspended",
    "cancelling",
    "succeeded",
    "failed",
    "skipped",
    "upstream_failed",
    "cancelled",
    "removed",
  ];
  const places = new Map(d.layoutOf(w).places.map((p) => [p.node.id, p]));
  return {
    rows: w.nodes.map((n) => ({
      path: n.id,
      name: n.id.split("/").at(-1),
      depth: n.id.split("/").length - 1,
      group: n.kind === "group",
      mapped: Boolean(n.mapped),
      kind: n.kind,
    })),
    runs: shown.map(d.barView),
    cells: shown.map((run) => {
      const counts = d.runCounts(run).nodes;
      return w.nodes.map((n) => {
        if (n.id === "notify" && run.version === w.versions[2]) return null;
        const inside =
          n.kind === "group" ? w.leaves.filter((l) => l.id.startsWith(`${n.id}/`)) : [n];
        const sum = {};
        for (const l of inside)
          for (const [s, c] of Object.entries(counts.get(l.id))) sum[s] = (sum[s] ?? 0) + c;
        const place = places.get(n.id);
        const t = place ? d.taskTimes(run, place.first) : null;
        const total = Object.values(sum).reduce((a, b) => a + b, 0);
        return [
          states.indexOf(worstOf(sum)),
          place && !n.mapped ? place.first : -1,
          1,
          t?.ended && t.started ? Math.round(t.ended - t.started) : -1,
          total,
          (sum.failed ?? 0) + (sum.upstream_failed ?? 0),
        ];
      });
    }),
    states,
    next: from + limit < all.length ? String(from + limit) : null,
  };
}

function* taskNumbers(run, q) {
  const node = q.get("node");
  for (const place of d.layoutOf(run.workflow).places) {
    if (node && place.node.id !== node && !place.node.id.startsWith(`${node}/`)) continue;
    if (!place.node.mapped) yield place.first;
    else for (let i = 1; i <= place.node.mapped; i += 1) yield place.first + i;
  }
}
function tasks(run, q) {
  const states = words(q.get("state"));
  const text = q.get("q");
  const limit = Number(q.get("limit")) || 100;
  const from = Number(q.get("cursor")) || 0;
  let total = 0;
  const items = [];
  let numbers = taskNumbers(run, q);
  if (q.get("sort") === "-duration") {
    const span = (n) => {
      const t = d.taskTimes(run, n);
      return t.started === null ? 0 : (t.ended ?? Date.now()) - t.started;
    };
    numbers = [...numbers].sort((a, b) => span(b) - span(a));
  } else if (q.get("sort") === "-task") numbers = [...numbers].reverse();
  for (const n of numbers) {
    if (states && !states.includes(d.taskState(run, n))) continue;
    if (text) {
      const place = d.placeOf(run, n);
      if (!has(place.node.id, text) && String(place.index) !== text) continue;
    }
    if (total >= from && items.length < limit) items.push(d.taskView(run, n));
    total += 1;
  }
  return { items, total, next: from + limit < total ? String(from + limit) : null };
}

function timeline(run, q) {
  const limit = Number(q.get("limit")) || 500;
  const from = Number(q.get("cursor")) || 0;
  const { total } = d.layoutOf(run.workflow);
  const items = [];
  for (let n = from + 1; n <= Math.min(total, from + limit); n += 1) {
    const t = d.taskView(run, n);
    const ready = t.ready_at ?? null;
    items.push({
      task: t.id,
      name: t.name,
      map_index: t.map_index,
      path: t.path,
      attempt: Math.max(1, t.attempt),
      state: t.state,
      created_at: t.created_at,
      ready_at: ready,
      queued_at: ready,
      started_at: t.started_at,
      ended_at: t.ended_at,
      waited: [
        { kind: "upstream", from: t.created_at, to: ready, detail: null },
        ...(ready && t.started_at
          ? [
              {
                kind: n % 3 === 0 ? "limit" : "worker",
                from: ready,
                to: t.started_at,
                detail: n % 3 === 0 ? "limit warehouse" : null,
              },
            ]
          : []),
      ],
      critical: d.chance(run.id, n, "c") < 0.4 && t.map_index === null,
    });
  }
  return {
    start: d.iso(run.started ?? run.created),
    end: d.iso(run.ended),
    items,
    total,
    next: from + limit < total ? String(from + limit) : null,
  };
}

function why(task) {
  const { view } = task;
  const pool = {
    kind: "limit",
    met: false,
    text: "the limit warehouse has 4 places, all held; 3 tasks are before it",
    hint: "Raise it, or look at who holds it.",
    since: view.ready_at,
    until: null,
    link: { kind: "limit", id: "warehouse" },
  };
  const up = {
    kind: "upstream",
    met: true,
    text: "all that it depends on succeeded",
    hint: null,
    since: null,
    until: null,
    link: null,
  };
  switch (view.state) {
    case "ready":
      return {
        state: view.state,
        summary: "It may run, and waits for a place in the limit warehouse.",
        reasons: [
          up,
          pool,
          {
            kind: "worker",
            met: true,
            text: "a worker is free",
            hint: null,
            since: null,
            until: null,
            link: null,
          },
        ],
      };
    case "retry_wait":
      return {
        state: view.state,
        summary: "Its second attempt failed; the third starts in 90 s.",
        reasons: [
          up,
          {
            kind: "retry",
            met: false,
            text: "the delay before attempt 3 has not passed",
            hint: "Rerun starts it at once.",
            since: null,
            until: view.due_at,
            link: null,
          },
        ],
      };
    case "upstream_failed":
      return {
        state: view.state,
        summary: "It did not run, because a task that it depends on failed.",
        reasons: [
          {
            ...up,
            met: false,
            text: "stage failed",
            hint: "Rerun it with what depends on it.",
            link: { kind: "task", id: `${view.run}.1` },
          },
        ],
      };
    case "failed":
      return {
        state: view.state,
        summary: "Its command ended with exit code 1, and no retry is left.",
        reasons: [
          {
            kind: "retry",
            met: false,
            text: "2 of 2 attempts were used",
            hint: "Rerun gives it new ones.",
            since: null,
            until: null,
            link: null,
          },
        ],
      };
    case "pending":
      return {
        state: view.state,
        summary: "It waits for what it depends on.",
        reasons: [
          {
            ...up,
            met: false,
            text: "stage still runs",
            link: { kind: "task", id: `${view.run}.1` },
          },
        ],
      };
    case "suspended":
      return {
        state: view.state,
        summary: "A person must approve it.",
        reasons: [
          {
            kind: "approval",
            met: false,
            text: "nobody has answered yet",
            hint: "Answer above.",
            since: view.started_at,
            until: null,
            link: null,
          },
        ],
      };
    default:
      return { state: view.state, summary: `Its state is ${view.state}.`, reasons: [up] };
  }
}

// ---- logs ---------------------------------------------------------------------------------
function logOf(task) {
  const { view, run } = task;
  const big = run === d.bigRun && view.path === "list_files";
  return {
    big,
    total: big ? 1_000_000 : view.started_at ? 1 + Math.floor(d.chance(view.id, "lines") * 900) : 0,
    complete: view.ended_at !== null,
  };
}
const searches = new Map();
function search(log, q) {
  const text = q.get("q") ?? "";
  const levels = words(q.get("level"));
  const key = [log.total, log.big, text, q.get("level"), q.get("regex"), q.get("case")].join(
    "\u0000",
  );
  let found = searches.get(key);
  if (!found) {
    const plain = text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    let pattern;
    try {
      pattern = new RegExp(q.get("regex") ? text : plain, q.get("case") ? "" : "i");
    } catch {
      throw new Refused(
        400,
        "bad_pattern",
        "the pattern is not a regular expression",
        "Escape special characters, or search as text.",
      );
    }
    found = [];
    for (let n = 1; n <= log.total; n += 1) {
      const line = d.logLine(n, log.big);
      if (levels && !levels.includes(line.level)) continue;
      // biome-ignore lint/suspicious/noControlCharactersInRegex: the colours are not searched
      if (text === "" || pattern.test(line.text.replace(/\u001b\[[\d;]*m/g, ""))) found.push(n);
    }
    searches.set(key, found);
  }
  const limit = Number(q.get("limit")) || 2000;
  return {
    count: found.length,
    complete: true,
    lines: found.slice(0, limit),
    next: found.length > limit ? String(limit) : null,
  };
}

// ---- assets -------------------------------------------------------------------------------
const partitionTotal = (a) =>
  a.key === "events/hourly"
    ? d.HOURS
    : a.key === "sales/by_region"
      ? 120 * 24
      : a.index % 3 === 0
        ? 365
        : 0;
const partitionState = (a, i) => {
  const p = d.chance(a.key, i);
  return i > partitionTotal(a) - 4
    ? "missing"
    : p < 0.004
      ? "failed"
      : p < 0.02
        ? "missing"
        : "present";
};
const partitionKey = (a, i) =>
  a.key === "sales/by_region"
    ? `${new Date(d.NOW - (120 - Math.floor(i / 24)) * d.DAY).toISOString().slice(0, 10)}|region-${String(i % 24).padStart(2, "0")}`
    : a.key === "events/hourly"
      ? `${new Date(d.NOW - (d.HOURS - i) * 3_600_000).toISOString().slice(0, 13)}:00`
      : new Date(d.NOW - (partitionTotal(a) - i) * d.DAY).toISOString().slice(0, 10);
function assetView(a) {
  const total = partitionTotal(a);
  const counts = { total, present: 0, failed: 0, missing: 0 };
  if (!a.counts) {
    for (let i = 0; i < total; i += 1) counts[partitionState(a, i)] += 1;
    a.counts = counts;
  }
  return {
    key: a.key,
    namespace: "default",
    description: a.index === 20 ? "Page views and clicks, gathered by the hour" : null,
    kind: ["file", "table", "table", "table", "model"][a.level],
    health: a.health,
    freshness: {
      status: a.health === "stale" ? "stale" : a.index % 4 === 0 ? "none" : "fresh",
      due_at: a.health === "stale" ? d.iso(d.NOW - 3_600_000) : null,
    },
    last:
      a.health === "missing"
        ? null
        : {
            at: d.iso(d.NOW - (a.index + 1) * 400_000),
            run: d.runs[a.index + 20].id,
            task: `${d.runs[a.index + 20].id}.1`,
            partition: null,
          },
    producers: [d.workflows[a.index % 40].name],
    consumers: [],
    checks: { passed: a.index % 4, failed: a.health === "failed" ? 1 : 0 },
    partitions: total === 0 ? null : a.counts,
  };
}

// ---- writing ------------------------------------------------------------------------------
function bulkTasks(body) {
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

const limits = [
  {
    name: "warehouse",
    capacity: 4,
    used: 4,
    waiting: 3,
    strict: false,
    description: "Connections to the warehouse",
  },
  {
    name: "gpu",
    capacity: 2,
    used: 1,
    waiting: 0,
    strict: true,
    description: "Cards of the training machine",
  },
  { name: "default", capacity: 128, used: 37, waiting: 0, strict: false, description: null },
];
const variables = Array.from({ length: 14 }, (_, i) => ({
  key: ["region", "bucket", "alert_channel", "api_token"][i % 4] + (i > 3 ? `_${i}` : ""),
  value: i % 4 === 3 ? null : i % 4 === 0 ? "eu" : { name: "lake", prefix: i },
  secret: i % 4 === 3,
  description: null,
  updated_at: d.iso(d.NOW - i * 9_000_000),
}));
const connections = ["warehouse", "lake", "slack_alerts", "billing_api"].map((name, i) => ({
  name,
  kind: ["postgres", "s3", "slack", "http"][i],
  description: null,
  fields: { host: `${name}.internal`, user: "kobza" },
  secrets: ["password"],
  updated_at: d.iso(d.NOW - i * 80_000_000),
}));
const users = [
  {
    name: "olena",
    roles: { default: "admin" },
    created_at: d.iso(d.NOW - 90 * d.DAY),
    disabled: false,
  },
];
const tokens = [
  {
    id: "tok1",
    name: "ci",
    user: "olena",
    role: "operator",
    namespace: null,
    created_at: d.iso(d.NOW - 30 * d.DAY),
    expires_at: d.iso(d.NOW + 60 * d.DAY),
    last_used_at: d.iso(d.NOW - 60_000),
  },
];
const backfills = [
  {
    id: "bf1",
    state: "running",
    counts: { succeeded: 61, running: 4, failed: 2, pending: 23 },
    total: 90,
  },
  { id: "bf2", state: "succeeded", counts: { succeeded: 14 }, total: 14 },
  { id: "bf3", state: "paused", counts: { succeeded: 120, pending: 245 }, total: 365 },
].map((b, i) => ({
  ...b,
  namespace: "default",
  workflow: d.NAMES?.[i] ?? d.workflows[i * 5].name,
  from: d.iso(d.NOW - b.total * d.DAY),
  to: d.iso(d.NOW - d.DAY),
  partitions: null,
  order: "ascending",
  parallelism: 4,
  only: "missing",
  params: {},
  created_at: d.iso(d.NOW - (i + 1) * 7_200_000),
  created_by: "olena",
  ended_at: b.state === "succeeded" ? d.iso(d.NOW - 7_000_000) : null,
  message: null,
}));
const triggers = d.workflows
  .filter((w) => w.schedule)
  .map((w) => ({
    id: `tr-${w.index}`,
    namespace: "default",
    workflow: w.name,
    name: "schedule",
    kind: w.index % 8 === 5 ? "asset" : "cron",
    text: w.index % 8 === 5 ? "warehouse/orders" : w.schedule,
    timezone: w.timezone,
    paused: w.paused,
    catchup: w.index % 2 === 0,
    overlap: ["skip", "queue", "allow"][w.index % 3],
    next_at: w.index % 8 === 5 ? null : d.iso(d.NOW + (5 + w.index * 11) * 60_000),
    last: {
      at: d.iso(d.NOW - w.index * 600_000 - 60_000),
      slot: null,
      decision: w.index % 6 === 4 ? "skipped" : "started",
      reason:
        w.index % 6 === 4 ? "a run of it still runs, and overlap is skip" : "the slot was due",
      run: d.runs[w.index].id,
    },
    spec: { cron: w.schedule, timezone: w.timezone },
  }));

const artifacts = (run, task) =>
  [
    ["orders.parquet", "application/vnd.apache.parquet", "table", 1_840_221],
    ["report.md", "text/markdown", "markdown", 2_104],
    ["loss", "application/json", "plot", 8_210],
    ["confusion.svg", "image/svg+xml", "image", 3_120],
    ["summary.html", "text/html", "html", 1_902],
    ["metrics.json", "application/json", "json", 410],
    ["model.pkl", "application/octet-stream", null, 48_210_442],
  ].map(([name, media_type, preview, size], i) => ({
    id: `art-${i}`,
    name,
    key: null,
    media_type,
    size,
    hash: null,
    created_at: d.iso(d.NOW - 5_000_000),
    task,
    task_name: "train",
    run,
    preview,
  }));
const PREVIEWS = {
  "art-0": {
    kind: "table",
    columns: [
      { name: "order_id", type: "int64" },
      { name: "customer", type: "string" },
      { name: "price", type: "double" },
      { name: "placed_at", type: "timestamp" },
    ],
    rows: Array.from({ length: 100 }, (_, i) => [
      100_000 + i,
      ["Олена", "José", "<b>Bob</b>", null][i % 4],
      Math.round(d.chance("price", i) * 10_000) / 100,
      d.iso(d.NOW - i * 60_000),
    ]),
    total_rows: 84_112,
    text: null,
    value: null,
    truncated: true,
  },
  "art-1": {
    kind: "markdown",
    columns: [],
    rows: [],
    total_rows: null,
    text: "# Nightly report\n\n**84,112** orders, *2.1 %* more than yesterday.\n\n| region | orders | revenue |\n|---|---|---|\n| eu | 40,210 | 1.2 M |\n| us | 31,002 | 1.9 M |\n\n- checks hold\n- `late` files: 2\n\n[more](https://example.org/) and <img src=x onerror=alert(1)>",
    value: null,
    truncated: false,
  },
  "art-2": {
    kind: "plot",
    columns: [],
    rows: [],
    total_rows: null,
    text: null,
    value: {
      series: ["train", "validation"].map((name, s) => ({
        name,
        x: Array.from({ length: 60 }, (_, i) => i),
        y: Array.from(
          { length: 60 },
          (_, i) => Math.exp(-i / (18 + s * 6)) + s * 0.08 + d.chance(name, i) * 0.02,
        ),
      })),
      x_label: "epoch",
      y_label: "loss",
    },
    truncated: false,
  },
  "art-5": {
    kind: "json",
    columns: [],
    rows: [],
    total_rows: null,
    text: null,
    value: { auc: 0.9731, accuracy: 0.951, threshold: 0.42 },
    truncated: false,
  },
};

const idempotent = new Map();

const routes = [];
const on = (method, pattern, handler) => {
  const names = [];
  const regex = new RegExp(
    `^${pattern.replace(/\{(\w+)\}/g, (_, name) => {
      names.push(name);
      return "([^/]+)";
    })}$`,
  );
  routes.push({ method, regex, names, handler });
};

on("GET", "/health", () => ({
  status: "ok",
  version: "0.1.0",
  now: d.iso(Date.now()),
  started_at: d.iso(d.NOW - 3 * d.DAY),
  store: { kind: "sqlite", detail: "/var/lib/kobza/kobza.db" },
  loops: ["runtime", "triggers", "executor", "retention", "notifications"].map((name, i) => ({
    name,
    status: i === 3 ? "late" : "ok",
    last_at: d.iso(Date.now() - i * 900),
    lag_ms: i === 3 ? 92_000 : i * 2,
    detail: i === 3 ? "deletes 20,000 old runs" : null,
  })),
  last_event: seq,
  workflow_errors: 1,
}));
on("GET", "/me", () => ({ name: "local", local: true, role: "admin", namespaces: ["default"] }));
on("GET", "/namespaces", () => ({ items: [{ name: "default", workflows: 50 }], next: null }));
on("GET", "/summary", () => {
  const day = d.runs.filter((r) => r.created > Date.now() - d.DAY);
  const counts = {};
  for (const r of day) counts[r.state] = (counts[r.state] ?? 0) + 1;
  const waiting = d.runs.slice(0, 400).flatMap((r) =>
    r.ended
      ? []
      : d
          .layoutOf(r.workflow)
          .places.filter(
            (p) => p.node.kind === "approval" && d.taskState(r, p.first) === "suspended",
          )
          .map((p) => d.taskView(r, p.first)),
  );
  return {
    runs: counts,
    tasks: {},
    running: d.runs
      .filter((r) => ["running", "queued", "paused"].includes(r.state))
      .slice(0, 10)
      .map(d.runView),
    failed: day
      .filter((r) => r.state === "failed")
      .slice(0, 10)
      .map(d.runView),
    waiting: waiting.slice(0, 10),
    late: [
      {
        workflow: "ledger_close",
        trigger: "tr-21",
        due_at: d.iso(d.NOW - 1_500_000),
        late_ms: 1_500_000,
        reason: "at most 1 run at once, and one still runs",
      },
    ],
    upcoming: triggers
      .filter((t) => t.next_at)
      .slice(0, 8)
      .map((t) => ({ workflow: t.workflow, trigger: t.id, at: t.next_at, text: t.text })),
    history: Array.from({ length: 24 }, (_, i) => ({
      at: d.iso(Math.floor(d.NOW / 3_600_000) * 3_600_000 - (23 - i) * 3_600_000),
      succeeded: Math.round(6 + d.chance("h", i) * 16),
      failed: d.chance("hf", i) < 0.3 ? Math.ceil(d.chance("hn", i) * 3) : 0,
      cancelled: d.chance("hc", i) < 0.1 ? 1 : 0,
    })),
    workflow_errors: [{ name: "broken_report", message: "no task is called extrat", line: 7 }],
  };
});
on("GET", "/search", ({ q }) => {
  const text = q.get("q") ?? "";
  return {
    items: [
      ...d.workflows
        .filter((w) => has(w.name, text))
        .map((w) => ({
          kind: "workflow",
          id: w.name,
          title: w.name,
          detail: w.schedule,
          state: d.runsOfWorkflow(w)[0]?.state ?? null,
        })),
      ...d.runs
        .filter((r) => r.id.startsWith(text) || r.id.endsWith(text))
        .slice(0, 5)
        .map((r) => ({
          kind: "run",
          id: r.id,
          title: r.workflow.name,
          detail: r.id,
          state: r.state,
        })),
      ...d.assets
        .filter((a) => has(a.key, text))
        .map((a) => ({ kind: "asset", id: a.key, title: a.key, detail: null, state: a.health })),
    ].slice(0, Number(q.get("limit")) || 20),
  };
});
on("GET", "/workflows", ({ q }) => {
  let list = d.workflows.filter((w) => has(w.name, q.get("q")));
  if (q.get("tag")) list = list.filter((w) => w.tags.includes(q.get("tag")));
  if (q.get("dialect")) list = list.filter((w) => w.dialect === q.get("dialect"));
  if (q.get("paused")) list = list.filter((w) => String(w.paused) === q.get("paused"));
  if (q.get("state")) list = list.filter((w) => d.runsOfWorkflow(w)[0]?.state === q.get("state"));
  const facet = (values) =>
    Object.entries(values.reduce((acc, v) => Object.assign(acc, { [v]: (acc[v] ?? 0) + 1 }), {}))
      .map(([value, count]) => ({ value, count }))
      .sort((a, b) => b.count - a.count);
  if (q.get("sort") === "-name") list = [...list].reverse();
  return {
    ...page(list, q, d.workflowView),
    facets: {
      tags: facet(d.workflows.flatMap((w) => w.tags)),
      dialects: facet(d.workflows.map((w) => w.dialect)),
    },
  };
});
on("GET", "/workflows/{name}", ({ name }) => {
  const w = findWorkflow(name);
  return {
    ...d.workflowView(w),
    params: w.index % 2 === 0 ? d.PARAMS : null,
    last_params: w.index % 2 === 0 ? { region: "us", batch_size: 750 } : null,
    source: d.SOURCE,
    language: "yaml",
    timezone: w.timezone,
    triggers: triggers.filter((t) => t.workflow === w.name),
    produces: d.assets.filter((a) => a.index % 40 === w.index).map((a) => a.key),
    consumes: [],
    max_active_runs: w.index === 0 ? 2 : null,
    timeout_ms: null,
  };
});
on("PATCH", "/workflows/{name}", ({ name, body }) => {
  const w = findWorkflow(name);
  w.paused = body.paused;
  emit({
    kind: "workflow",
    workflow: w.name,
    text: `${w.name} ${w.paused ? "paused" : "resumed"}`,
    by: "local",
  });
  return d.workflowView(w);
});
on("GET", "/workflows/{name}/graph", ({ name }) => graph(findWorkflow(name), null));
on("GET", "/workflows/{name}/grid", ({ name, q }) => grid(findWorkflow(name), q));
on("GET", "/workflows/{name}/versions", ({ name, q }) =>
  page(
    findWorkflow(name).versions.map((version, i) => ({
      version,
      created_at: d.iso(d.NOW - (i * 9 + 1) * d.DAY),
      current: i === 0,
      runs: null,
    })),
    q,
  ),
);
on("GET", "/workflows/{name}/versions/{version}", ({ name, version }) => {
  const w = findWorkflow(name);
  const i = w.versions.indexOf(version);
  if (i < 0) throw missing("that version");
  return {
    version,
    created_at: d.iso(d.NOW - (i * 9 + 1) * d.DAY),
    current: i === 0,
    source: d.SOURCE.replace("limit: 3", `limit: ${3 - i}`).replace(
      "  # the load waits for the check\n",
      i > 0 ? "" : "  # the load waits for the check\n",
    ),
    language: "yaml",
    params: null,
  };
});
on("GET", "/workflows/{name}/calendar", ({ name, q }) => {
  const w = findWorkflow(name);
  const days = new Map();
  for (const r of d.runsOfWorkflow(w)) {
    const date = d.iso(r.slot ?? r.created).slice(0, 10);
    const day = days.get(date) ?? { date, counts: {}, planned: 0 };
    day.counts[r.state] = (day.counts[r.state] ?? 0) + 1;
    days.set(date, day);
  }
  if (w.schedule)
    for (let i = 1; i < 40; i += 1)
      days.set(d.iso(d.NOW + i * d.DAY).slice(0, 10), {
        date: d.iso(d.NOW + i * d.DAY).slice(0, 10),
        counts: {},
        planned: 1,
      });
  return {
    days: [...days.values()].filter((x) => x.date >= q.get("from") && x.date <= q.get("to")),
  };
});
on("GET", "/workflows/{name}/durations", ({ name }) => {
  const w = findWorkflow(name);
  return {
    runs: d
      .runsOfWorkflow(w)
      .filter((r) => r.ended)
      .slice(0, 100)
      .reverse()
      .map(d.barView),
    tasks: w.leaves.slice(0, 40).map((n) => {
      const p50 = 4000 + d.chance(w.name, n.id) * 240_000;
      return {
        name: n.id,
        count: 100,
        failed: Math.floor(d.chance(n.id, "f") * 5),
        p50_ms: p50,
        p95_ms: p50 * 1.8,
        max_ms: p50 * 2.7,
      };
    }),
  };
});
on("POST", "/workflows/{name}/runs", ({ name, body }) => {
  const run = startRun(findWorkflow(name), body);
  return [201, { id: run.id, state: run.state }];
});
on("GET", "/runs", ({ q }) => page(filterRuns(q), q, d.runView));
on("POST", "/runs/bulk", ({ body }) => {
  const list = body.ids
    ? body.ids.map(findRun)
    : filterRuns(new URLSearchParams(body.filter ?? {}));
  const allowed = (r) =>
    body.action === "delete" || body.action === "clear_failed"
      ? r.ended !== null
      : r.ended === null;
  const items = list.slice(0, 200).map((r) => ({
    id: r.id,
    workflow: r.workflow.name,
    state: r.state,
    ok: allowed(r),
    message: allowed(r) ? null : `it is ${r.state}`,
  }));
  const chosen = list.filter(allowed);
  if (!body.dry_run) {
    for (const r of chosen) {
      if (body.action === "delete") {
        d.runs.splice(d.runs.indexOf(r), 1);
        d.runById.delete(r.id);
        emit({ kind: "run", run: r.id, workflow: r.workflow.name, text: "run deleted" });
      } else if (body.action === "clear_failed")
        bulkTasks({
          action: "clear",
          run: r.id,
          only_failed: true,
          downstream: true,
          dry_run: false,
        });
      else
        setRun(
          r,
          body.action === "cancel" ? "cancelled" : body.action === "pause" ? "paused" : "running",
          body.action === "cancel" ? { ended: Date.now() } : {},
        );
    }
  }
  return { count: chosen.length, items, truncated: list.length > 200 };
});
on("GET", "/runs/{id}", ({ id }) => d.runView(findRun(id)));
on("PATCH", "/runs/{id}", ({ id, body }) =>
  d.runView(Object.assign(findRun(id), "note" in body ? { note: body.note } : {})),
);
on("POST", "/runs/{id}/{what}", ({ id, what }) => {
  const run = findRun(id);
  if (run.ended)
    throw new Refused(409, "conflict", `the run is ${run.state} already`, "Read it again.");
  if (what === "cancel") {
    clearInterval(run.timer);
    setRun(run, "cancelled", { ended: Date.now() });
  } else setRun(run, what === "pause" ? "paused" : "running");
  return d.runView(run);
});
on("GET", "/runs/{id}/graph", ({ id }) => {
  const run = findRun(id);
  return graph(run.workflow, run);
});
on("GET", "/runs/{id}/tasks", ({ id, q }) => tasks(findRun(id), q));
on("GET", "/runs/{id}/timeline", ({ id, q }) => timeline(findRun(id), q));
on("GET", "/runs/{id}/artifacts", ({ id, q }) => page(artifacts(id, `${id}.1`), q));
on("GET", "/compare", ({ q }) => {
  const list = q.get("runs").split(",").map(findRun);
  return {
    runs: list.map(d.runView),
    outputs: [
      {
        task: "evaluate",
        key: "auc",
        values: list.map((r) => Math.round(d.chance(r.id, "auc") * 1000) / 1000),
      },
      { task: "evaluate", key: "rows", values: list.map(() => 84112) },
    ],
  };
});
on("POST", "/tasks/bulk", ({ body }) => bulkTasks(body));
on("GET", "/tasks/{id}", ({ id }) => {
  const { run, view, number } = findTask(id);
  const place = d.placeOf(run, number);
  const near = (ids) =>
    ids.map((path) => {
      const p = d.layoutOf(run.workflow).places.find((x) => x.node.id === path);
      const counts = d.nodeCounts(run, p);
      return {
        path,
        name: path.split("/").at(-1),
        state: worstOf(counts),
        counts,
        task: p.node.mapped ? null : `${run.id}.${p.first}`,
      };
    });
  return {
    ...view,
    attempts: view.attempt,
    retry_limit: 3,
    timeout_ms: 3_600_000,
    rendered: {
      language:
        place.node.kind === "sql" ? "sql" : place.node.kind === "python" ? "python" : "bash",
      text:
        place.node.kind === "sql"
          ? "select count(*) = 0\nfrom staging\nwhere price < 0 -- none may be"
          : place.node.kind === "python"
            ? "etl.extract(day='2026-11-22', region='eu')"
            : "aws s3 cp report.html s3://reports/2026-11-22.html",
    },
    inputs: { day: "2026-11-22", region: run.params.region },
    outputs:
      view.state === "succeeded"
        ? [
            { key: "rows", value: 84112, truncated: false },
            {
              key: "result",
              value: { accepted: 84109, rejected: 3, files: ["a.csv", "b.csv"] },
              truncated: false,
            },
          ]
        : [],
    spec: { python: "etl.extract", retries: { limit: 3, backoff: "exponential" } },
    upstream: near(place.node.needs),
    downstream: near(
      run.workflow.leaves.filter((n) => n.needs.includes(view.path)).map((n) => n.id),
    ),
    limits: place.node.pool ? [{ name: place.node.pool, units: 1 }] : [],
    produces: view.path === "load_warehouse" ? ["warehouse/orders"] : [],
    approval:
      view.kind === "approval"
        ? {
            prompt: "AUC is 0.973 against 0.961 in production. Release the new model?",
            fields: {
              type: "object",
              required: ["traffic"],
              properties: {
                traffic: {
                  type: "integer",
                  minimum: 1,
                  maximum: 100,
                  default: 10,
                  title: "Share of traffic, percent",
                },
              },
            },
          }
        : null,
  };
});
on("GET", "/tasks/{id}/why", ({ id }) => why(findTask(id)));
on("POST", "/tasks/{id}/approve", ({ id, body }) => {
  const task = findTask(id);
  if (task.view.state !== "suspended")
    throw new Refused(
      409,
      "conflict",
      `it is ${task.view.state} already: olena approved it`,
      "Read it again.",
    );
  setTask(task.run, task.number, body.approved ? "succeeded" : "failed", {
    started: Date.now() - 1000,
    ended: Date.now(),
    attempt: 1,
  });
  return findTask(id).view;
});
on("GET", "/tasks/{id}/attempts", ({ id, q }) => {
  const { view, run } = findTask(id);
  return page(
    Array.from({ length: view.attempt }, (_, i) => ({
      attempt: i + 1,
      launch: i + 1,
      state: i + 1 < view.attempt ? "failed" : view.state === "retry_wait" ? "failed" : view.state,
      cause: null,
      message: i + 1 < view.attempt ? "connection reset by peer" : view.message,
      exit_code: i + 1 < view.attempt ? 1 : view.exit_code,
      created_at: view.created_at,
      started_at: view.started_at,
      ended_at: i + 1 < view.attempt ? view.started_at : view.ended_at,
      worker: "local",
      log: { lines: logOf({ view, run }).total, bytes: 1000 },
    })),
    q,
  );
});
on("GET", "/tasks/{id}/artifacts", ({ id, q }) => {
  const { view } = findTask(id);
  return page(
    view.path === "train" || view.path === "stage" || view.path === "list_files"
      ? artifacts(view.run, id)
      : [],
    q,
  );
});
on(
  "GET",
  "/artifacts/{id}/preview",
  ({ id }) =>
    PREVIEWS[id] ??
    (() => {
      throw missing("that preview");
    })(),
);
on("GET", "/tasks/{id}/attempts/{n}/log", ({ id, q }) => {
  const log = logOf(findTask(id));
  let from = Number(q.get("from")) || 1;
  if (from < 0) from = Math.max(1, log.total + from + 1);
  const limit = Math.min(5000, Number(q.get("limit")) || 1000);
  const lines = [];
  for (let n = from; n < from + limit && n <= log.total; n += 1) lines.push(d.logLine(n, log.big));
  let first = null;
  for (let n = 1; n <= Math.min(log.total, 20_000) && first === null; n += 1)
    if (d.logLine(n, log.big).level === "error") first = n;
  return {
    lines,
    total: log.total,
    bytes: log.total * 88,
    complete: log.complete,
    first_error: first,
  };
});
on("GET", "/tasks/{id}/attempts/{n}/log/search", ({ id, q }) => search(logOf(findTask(id)), q));
on("GET", "/assets", ({ q }) =>
  page(
    d.assets.filter(
      (a) => has(a.key, q.get("q")) && (!q.get("health") || a.health === q.get("health")),
    ),
    q,
    assetView,
  ),
);
on("GET", "/assets-graph", ({ q }) => ({
  nodes: d.assets.filter((a) => has(a.key, q.get("q"))).map(assetView),
  edges: d.assets.flatMap((a) =>
    a.from.map((f) => ({
      from: d.assets[f].key,
      to: a.key,
      workflow: d.workflows[a.index % 40].name,
    })),
  ),
  truncated: false,
}));
const findAsset = (key) =>
  d.assets.find((a) => a.key === key) ??
  (() => {
    throw missing(`asset ${key}`);
  })();
on("GET", "/assets/{key}", ({ key }) => {
  const a = findAsset(key);
  return {
    ...assetView(a),
    metadata: { rows: 84112, bytes: 1840221 },
    upstream: a.from.map((f) => d.assets[f].key),
    downstream: d.assets.filter((b) => b.from.includes(a.index)).map((b) => b.key),
    check_results: Array.from({ length: 1 + (a.index % 4) }, (_, i) => ({
      name: ["no_nulls", "row_count", "no_negative_price", "unique_ids"][i],
      passed: !(a.health === "failed" && i === 0),
      blocking: i === 0,
      at: d.iso(d.NOW - 900_000),
      run: d.runs[30].id,
      detail:
        a.health === "failed" && i === 0 ? "3 of 84,112 rows have no customer" : "84,112 rows",
    })),
  };
});
on("GET", "/assets/{key}/history", ({ key, q }) => {
  findAsset(key);
  return page(
    Array.from({ length: 240 }, (_, i) => ({
      seq: 5000 - i,
      at: d.iso(d.NOW - i * 3_600_000),
      kind: i % 3 === 2 ? "checked" : "materialized",
      partition: d.iso(d.NOW - i * d.DAY).slice(0, 10),
      run: d.runs[i].id,
      task: `${d.runs[i].id}.1`,
      check: i % 3 === 2 ? "row_count" : null,
      passed: i % 3 === 2 ? i % 30 !== 2 : null,
      detail: `${80_000 + i * 17} rows`,
      metadata: null,
    })),
    q,
  );
});
on("GET", "/assets/{key}/partitions", ({ key, q }) => {
  const a = findAsset(key);
  const total = partitionTotal(a);
  const dimensions =
    a.key === "sales/by_region"
      ? [
          { name: "date", kind: "time", total: 120 },
          { name: "region", kind: "static", total: 24 },
        ]
      : [{ name: "time", kind: "time", total }];
  if (q.get("buckets")) {
    const n = Math.min(total, Number(q.get("buckets")));
    const buckets = Array.from({ length: n }, (_, b) => {
      const [from, to] = [Math.floor((b * total) / n), Math.floor(((b + 1) * total) / n)];
      const counts = {};
      for (let i = from; i < to; i += 1)
        counts[partitionState(a, i)] = (counts[partitionState(a, i)] ?? 0) + 1;
      return {
        offset: from,
        count: to - from,
        first: partitionKey(a, from),
        last: partitionKey(a, to - 1),
        counts,
      };
    });
    return { dimensions, total, buckets };
  }
  const items = [];
  const limit = Number(q.get("limit")) || 1000;
  let i = Number(q.get("cursor") ?? q.get("offset")) || 0;
  for (; i < total && items.length < limit; i += 1) {
    const state = partitionState(a, i);
    if (q.get("state") && q.get("state") !== state) continue;
    items.push({
      key: partitionKey(a, i),
      state,
      at: state === "present" ? d.iso(d.NOW - i * 1000) : null,
      run: state === "missing" ? null : d.runs[i % 9000].id,
    });
  }
  return { dimensions, total, items, next: i < total ? String(i) : null };
});
on("GET", "/triggers", ({ q }) =>
  page(
    triggers.filter(
      (t) =>
        (!q.get("workflow") || t.workflow === q.get("workflow")) &&
        (!q.get("kind") || t.kind === q.get("kind")) &&
        (!q.get("paused") || String(t.paused) === q.get("paused")),
    ),
    q,
  ),
);
const findTrigger = (id) =>
  triggers.find((t) => t.id === id) ??
  (() => {
    throw missing("that trigger");
  })();
on("GET", "/triggers/{id}", ({ id }) => findTrigger(id));
on("PATCH", "/triggers/{id}", ({ id, body }) => {
  const t = Object.assign(findTrigger(id), { paused: body.paused });
  emit({ kind: "trigger", workflow: t.workflow, text: "trigger changed" });
  return t;
});
on("POST", "/triggers/{id}/fire", ({ id }) => {
  const run = startRun(findWorkflow(findTrigger(id).workflow), {});
  return [201, { id: run.id, state: run.state }];
});
on("GET", "/triggers/{id}/decisions", ({ id, q }) => {
  findTrigger(id);
  return page(
    Array.from({ length: 40 }, (_, i) => ({
      at: d.iso(d.NOW - i * d.DAY),
      slot: d.iso(Math.floor(d.NOW / d.DAY) * d.DAY - i * d.DAY),
      decision: i % 9 === 4 ? "skipped" : "started",
      reason: i % 9 === 4 ? "a run of it still ran, and overlap is skip" : "the slot was due",
      run: i % 9 === 4 ? null : d.runs[i].id,
    })),
    q,
  );
});
on("GET", "/triggers/{id}/upcoming", ({ id }) => {
  const t = findTrigger(id);
  return {
    items: t.next_at
      ? Array.from({ length: 10 }, (_, i) => ({
          at: d.iso(Date.parse(t.next_at) + i * d.DAY),
          interval_start: null,
          interval_end: null,
        }))
      : [],
  };
});
on("GET", "/backfills", ({ q }) =>
  page(
    backfills.filter(
      (b) =>
        (!q.get("state") || b.state === q.get("state")) &&
        (!q.get("workflow") || b.workflow === q.get("workflow")),
    ),
    q,
  ),
);
on("POST", "/backfills", ({ body }) => {
  const from = Date.parse(body.from);
  const n = Math.round((Date.parse(body.to) - from) / d.DAY);
  if (n > 10_000)
    throw new Refused(
      422,
      "too_many",
      `that would be ${n} runs; at most 10,000 at once`,
      "Choose fewer days.",
    );
  const items = Array.from({ length: n }, (_, i) => {
    const exists = d.chance("bf", from + i) < 0.4;
    return {
      interval_start: d.iso(from + i * d.DAY),
      interval_end: d.iso(from + (i + 1) * d.DAY),
      partition: null,
      existing: exists
        ? { run: d.runs[i].id, state: d.chance("bs", i) < 0.2 ? "failed" : "succeeded" }
        : null,
      action: exists && body.only === "missing" ? "skip" : exists ? "rerun" : "create",
    };
  });
  const counts = {};
  for (const item of items) counts[item.action] = (counts[item.action] ?? 0) + 1;
  if (body.dry_run)
    return {
      count: n,
      items: items.slice(0, 200),
      truncated: n > 200,
      counts,
      warnings: n > 30 ? ["It takes about 3 h at 4 runs at once."] : [],
    };
  const todo = n - (counts.skip ?? 0);
  const made = {
    id: `bf${backfills.length + 1}`,
    namespace: "default",
    workflow: body.workflow,
    state: "running",
    from: body.from,
    to: body.to,
    partitions: null,
    order: body.order,
    parallelism: body.parallelism,
    only: body.only,
    params: body.params,
    total: todo,
    counts: { pending: todo - Math.min(todo, 4), running: Math.min(todo, 4) },
    created_at: d.iso(Date.now()),
    created_by: "local",
    ended_at: null,
    message: null,
  };
  backfills.unshift(made);
  emit({ kind: "backfill", workflow: body.workflow, text: "backfill started", by: "local" });
  return [201, made];
});
const findBackfill = (id) =>
  backfills.find((b) => b.id === id) ??
  (() => {
    throw missing("that backfill");
  })();
on("GET", "/backfills/{id}", ({ id }) => findBackfill(id));
on("GET", "/backfills/{id}/slots", ({ id, q }) => {
  const b = findBackfill(id);
  const states = Object.entries(b.counts).flatMap(([s, n]) => Array(n).fill(s));
  return page(
    states
      .map((state, i) => ({
        slot: d.iso(Date.parse(b.from) + i * d.DAY),
        interval_start: d.iso(Date.parse(b.from) + i * d.DAY),
        interval_end: d.iso(Date.parse(b.from) + (i + 1) * d.DAY),
        partition: null,
        run: state === "pending" ? null : d.runs[i].id,
        state,
      }))
      .filter((s) => !q.get("state") || s.state === q.get("state")),
    q,
  );
});
on("POST", "/backfills/{id}/{what}", ({ id, what }) => {
  const b = findBackfill(id);
  b.state = { pause: "paused", resume: "running", cancel: "cancelled", retry_failed: "running" }[
    what
  ];
  emit({ kind: "backfill", workflow: b.workflow, text: `backfill ${what}`, by: "local" });
  return b;
});
on("GET", "/limits", ({ q }) => page(limits, q));
on("PUT", "/limits/{name}", ({ name, body }) => {
  const l = limits.find((x) => x.name === name);
  if (l) Object.assign(l, body);
  else limits.push({ name, used: 0, waiting: 0, ...body });
  emit({ kind: "limit", text: `limit ${name} changed` });
  return { name };
});
on("DELETE", "/limits/{name}", ({ name }) => {
  limits.splice(
    limits.findIndex((l) => l.name === name),
    1,
  );
  return [204, null];
});
const limitUsers = (n) =>
  Array.from({ length: n }, (_, i) => ({
    ...d.taskView(d.runs[i], 1),
    units: 1,
    since: d.iso(d.NOW - i * 60_000),
    priority: 0,
    position: i + 1,
  }));
on("GET", "/limits/{name}/holders", ({ name, q }) =>
  page(limitUsers(limits.find((l) => l.name === name)?.used ?? 0), q),
);
on("GET", "/limits/{name}/waiters", ({ name, q }) =>
  page(limitUsers(limits.find((l) => l.name === name)?.waiting ?? 0), q),
);
const keyed = (path, list, field) => {
  on("GET", path, ({ q }) =>
    page(
      list.filter((x) => has(x[field], q.get("q"))),
      q,
    ),
  );
  on("PUT", `${path}/{name}`, ({ name, body }) => {
    const found = list.find((x) => x[field] === name);
    const more = {
      ...body,
      updated_at: d.iso(Date.now()),
      ...(body.secrets ? { secrets: Object.keys(body.secrets) } : {}),
      ...(body.secret ? { value: null } : {}),
    };
    if (found) Object.assign(found, more);
    else list.unshift({ [field]: name, ...more });
    return found ?? list[0];
  });
  on("DELETE", `${path}/{name}`, ({ name }) => {
    list.splice(
      list.findIndex((x) => x[field] === name),
      1,
    );
    return [204, null];
  });
};
keyed("/variables", variables, "key");
keyed("/connections", connections, "name");
on("POST", "/connections/{name}/test", () => ({ ok: true, message: "select 1 answered", ms: 12 }));
on("GET", "/events", ({ q }) =>
  page(
    events.filter(
      (e) =>
        (!q.get("run") || e.run === q.get("run")) &&
        (!q.get("task") || e.task === q.get("task")) &&
        (!q.get("kind") || e.kind === q.get("kind")) &&
        (!q.get("workflow") || e.workflow === q.get("workflow")) &&
        has(e.text, q.get("q")),
    ),
    q,
  ),
);
on("GET", "/audit", ({ q }) =>
  page(
    Array.from({ length: 60 }, (_, i) => ({
      seq: 900 - i,
      at: d.iso(d.NOW - i * 700_000),
      principal: ["olena", "ci", "local"][i % 3],
      action: ["run.cancel", "task.clear", "workflow.put", "limit.set"][i % 4],
      target: d.workflows[i % 40].name,
      result: i % 17 === 5 ? "refused" : "ok",
      detail: null,
    })).filter((a) => has(`${a.principal} ${a.action} ${a.target}`, q.get("q"))),
    q,
  ),
);
on("GET", "/users", ({ q }) => page(users, q));
on("POST", "/users", ({ body }) => {
  users.push({
    name: body.name,
    roles: body.roles,
    created_at: d.iso(Date.now()),
    disabled: false,
  });
  return [201, users.at(-1)];
});
on("DELETE", "/users/{name}", ({ name }) => {
  users.splice(
    users.findIndex((u) => u.name === name),
    1,
  );
  return [204, null];
});
on("GET", "/tokens", ({ q }) => page(tokens, q));
on("POST", "/tokens", ({ body }) => {
  tokens.push({
    id: `tok${tokens.length + 1}`,
    user: "local",
    created_at: d.iso(Date.now()),
    last_used_at: null,
    ...body,
  });
  return [201, { ...tokens.at(-1), token: "kbz_9f2c1e7ab04d5f3388ce" }];
});
on("DELETE", "/tokens/{id}", ({ id }) => {
  tokens.splice(
    tokens.findIndex((t) => t.id === id),
    1,
  );
  return [204, null];
});

// ---- HTTP ---------------------------------------------------------------------------------
function stream(req, res, q) {
  res.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" });
  const frame = (event, data, id) =>
    res.write(
      `event: ${event}\n${id === undefined ? "" : `id: ${id}\n`}data: ${JSON.stringify(data)}\n\n`,
    );
  frame("hello", { seq, version: "0.1.0" });
  let waiting = [];
  const after = Number(req.headers["last-event-id"] ?? q.get("after")) || seq;
  waiting = events
    .filter((e) => e.seq > after && (e.kind !== "task" || e.run === q.get("run")))
    .reverse();
  const follower = { run: q.get("run"), send: (event) => waiting.push(event) };
  followers.add(follower);
  const timer = setInterval(() => {
    if (waiting.length === 0) return;
    if (waiting.length > 500)
      frame("skipped", {
        from: waiting[0].seq,
        to: waiting.at(-1).seq,
        runs: [...new Set(waiting.map((e) => e.run))],
      });
    else frame("events", waiting, waiting.at(-1).seq);
    waiting = [];
  }, 100);
  req.on("close", () => {
    clearInterval(timer);
    followers.delete(follower);
  });
}

function logStream(req, res, id, q) {
  res.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" });
  let n = Number(req.headers["last-event-id"] ?? q.get("from")) || 1;
  const timer = setInterval(() => {
    const task = findTask(id);
    if (task.view.ended_at !== null) {
      res.write(
        `event: end\ndata: ${JSON.stringify({ total: n - 1, state: task.view.state })}\n\n`,
      );
      clearInterval(timer);
      return;
    }
    const lines = [d.logLine(n, false), d.logLine(n + 1, false)];
    n += 2;
    res.write(`event: lines\nid: ${n}\ndata: ${JSON.stringify({ lines, total: n - 1 })}\n\n`);
  }, 200);
  req.on("close", () => clearInterval(timer));
}

const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
  ".woff2": "font/woff2",
};
export const CSP =
  "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data: blob:; connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

async function files(res, dist, path) {
  const file = path.startsWith("/static/") || path === "/favicon.svg" ? path : "/index.html";
  try {
    const body = await readFile(join(dist, normalize(file)));
    res.writeHead(200, {
      "content-type": TYPES[extname(file)] ?? "application/octet-stream",
      "x-content-type-options": "nosniff",
      ...(file === "/index.html"
        ? {
            "content-security-policy": CSP,
            "cache-control": "no-cache",
            "referrer-policy": "same-origin",
          }
        : { "cache-control": "public, max-age=31536000, immutable" }),
    });
    res.end(body);
  } catch {
    res.writeHead(404);
    res.end("not found");
  }
}

const content = (id) =>
  id === "art-4"
    ? [
        "text/html",
        "<h1>Summary</h1><p>84,112 orders</p><script>parent.document.title='owned'</script>",
      ]
    : id === "art-3"
      ? [
          "image/svg+xml",
          '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 200 200" width="320"><rect width="200" height="200" fill="#eef"/><rect x="10" y="10" width="85" height="85" fill="#235"/><rect x="105" y="105" width="85" height="85" fill="#346"/><script>alert(1)</script></svg>',
        ]
      : ["application/octet-stream", "bytes"];

/** Serves the contract and the built pages; answers the server and its address. */
export function serve({ port = 0, dist }) {
  const server = createServer(async (req, res) => {
    const url = new URL(req.url, "http://localhost");
    const q = url.searchParams;
    if (!url.pathname.startsWith("/api/")) return files(res, dist, url.pathname);
    const path = url.pathname.replace("/api/v1", "");
    try {
      if (path === "/events/stream") return stream(req, res, q);
      const live = /^\/tasks\/([^/]+)\/attempts\/\d+\/log\/stream$/.exec(path);
      if (live) return logStream(req, res, live[1], q);
      const bytes = /^\/artifacts\/([^/]+)\/content$/.exec(path);
      if (bytes) {
        const [type, text] = content(bytes[1]);
        res.writeHead(200, {
          "content-type": type,
          "content-security-policy":
            "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'",
          "x-content-type-options": "nosniff",
        });
        return res.end(text);
      }
      let body = {};
      if (req.method !== "GET") {
        if (!req.headers["x-kobza-csrf"])
          throw new Refused(403, "csrf", "the request does not come from the pages");
        let text = "";
        for await (const chunk of req) text += chunk;
        body = text ? JSON.parse(text) : {};
      }
      const key = req.headers["idempotency-key"];
      if (key && idempotent.has(key)) return json(res, ...idempotent.get(key));
      for (const route of routes) {
        const match = route.method === req.method ? route.regex.exec(path) : null;
        if (!match) continue;
        const params = Object.fromEntries(
          route.names.map((name, i) => [name, decodeURIComponent(match[i + 1])]),
        );
        const result = route.handler({ ...params, q, body });
        const answer = Array.isArray(result) ? result : [200, result];
        if (key) idempotent.set(key, answer);
        if (answer[0] === 204) {
          res.writeHead(204);
          return res.end();
        }
        return json(res, answer[0], answer[1]);
      }
      throw missing("that route");
    } catch (error) {
      if (!(error instanceof Refused)) console.error(error);
      const { status = 500, code = "internal", hint = null, fields = [] } = error;
      json(res, status, { error: { code, message: error.message, hint, fields } });
    }
  });
  return new Promise((resolve) => {
    server.listen(port, "127.0.0.1", () =>
      resolve({ server, url: `http://127.0.0.1:${server.address().port}` }),
    );
  });
}
