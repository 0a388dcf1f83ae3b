// Routes of the server, workflows, runs, tasks, logs.

import { has, missing, page, Refused } from "./answer.mjs";
import { bulkTasks } from "./change.mjs";
import * as d from "./data.mjs";
import { on } from "./route.mjs";
import { artifacts, PREVIEWS, triggers } from "./tables.mjs";
import {
  filterRuns,
  findRun,
  findTask,
  findWorkflow,
  graph,
  grid,
  logOf,
  search,
  tasks,
  timeline,
  why,
  worstOf,
} from "./views.mjs";
import { emit, seq, setRun, setTask, startRun } from "./world.mjs";

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
