// Reading: graphs, grids, tasks, timelines, reasons, logs, assets.

import { has, missing, Refused, words } from "./answer.mjs";
import * as d from "./data.mjs";
import { seq } from "./world.mjs";

export const findRun = (id) =>
  d.runById.get(id) ??
  (() => {
    throw missing(`run ${id}`);
  })();
export const findWorkflow = (name) =>
  d.byName.get(name) ??
  (() => {
    throw missing(`workflow ${name}`);
  })();
export function findTask(id) {
  const dot = id.lastIndexOf(".");
  const run = findRun(id.slice(0, dot));
  const view = d.taskView(run, Number(id.slice(dot + 1)));
  if (!view) throw missing(`task ${id}`);
  return { run, number: Number(id.slice(dot + 1)), view };
}

export const worstOf = (counts) => {
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

export function graph(w, run) {
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

export function filterRuns(q) {
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

export function grid(w, q) {
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

export function* taskNumbers(run, q) {
  const node = q.get("node");
  for (const place of d.layoutOf(run.workflow).places) {
    if (node && place.node.id !== node && !place.node.id.startsWith(`${node}/`)) continue;
    if (!place.node.mapped) yield place.first;
    else for (let i = 1; i <= place.node.mapped; i += 1) yield place.first + i;
  }
}
export function tasks(run, q) {
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

export function timeline(run, q) {
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

export function why(task) {
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
export function logOf(task) {
  const { view, run } = task;
  const big = run === d.bigRun && view.path === "list_files";
  return {
    big,
    total: big ? 1_000_000 : view.started_at ? 1 + Math.floor(d.chance(view.id, "lines") * 900) : 0,
    complete: view.ended_at !== null,
  };
}
export const searches = new Map();
export function search(log, q) {
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
export const partitionTotal = (a) =>
  a.key === "events/hourly"
    ? d.HOURS
    : a.key === "sales/by_region"
      ? 120 * 24
      : a.index % 3 === 0
        ? 365
        : 0;
export const partitionState = (a, i) => {
  const p = d.chance(a.key, i);
  return i > partitionTotal(a) - 4
    ? "missing"
    : p < 0.004
      ? "failed"
      : p < 0.02
        ? "missing"
        : "present";
};
export const partitionKey = (a, i) =>
  a.key === "sales/by_region"
    ? `${new Date(d.NOW - (120 - Math.floor(i / 24)) * d.DAY).toISOString().slice(0, 10)}|region-${String(i % 24).padStart(2, "0")}`
    : a.key === "events/hourly"
      ? `${new Date(d.NOW - (d.HOURS - i) * 3_600_000).toISOString().slice(0, 13)}:00`
      : new Date(d.NOW - (partitionTotal(a) - i) * d.DAY).toISOString().slice(0, 10);
export function assetView(a) {
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
