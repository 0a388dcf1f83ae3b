// Routes of assets, triggers, backfills, limits, settings, events.

import { has, missing, page, Refused } from "./answer.mjs";
import * as d from "./data.mjs";
import { on } from "./route.mjs";
import { backfills, connections, limits, tokens, triggers, users, variables } from "./tables.mjs";
import { assetView, findWorkflow, partitionKey, partitionState, partitionTotal } from "./views.mjs";
import { emit, events, startRun } from "./world.mjs";

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
