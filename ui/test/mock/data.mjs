// A busy store for the tests of the pages: 50 workflows, 10,000 runs, one run of 100,000 tasks, a
// log of a million lines. Everything follows from numbers, so that nothing large is kept.

export const NOW = Date.now();
const MINUTE = 60_000;
const HOUR = 3_600_000;
export const DAY = 86_400_000;

/** A number from 0 to 1 that depends only on its arguments. */
export function chance(...parts) {
  let h = 2166136261;
  for (const c of parts.join("\u0000")) h = Math.imul(h ^ c.codePointAt(0), 16777619);
  h ^= h >>> 15;
  h = Math.imul(h, 2246822507);
  h ^= h >>> 13;
  return (h >>> 0) / 4294967296;
}

export const iso = (ms) => (ms === null ? null : new Date(ms).toISOString());
const hex = (text, n) => {
  let out = "";
  for (let i = 0; out.length < n; i += 1)
    out += Math.floor(chance(text, i) * 0xffffffff)
      .toString(16)
      .padStart(8, "0");
  return out.slice(0, n);
};
const uuid = (i) => {
  const h = hex(`run ${i}`, 12);
  return `019a${String(i).padStart(4, "0").slice(-4)}-${hex(`r${i}`, 4)}-7${hex(`s${i}`, 3)}-8${hex(`t${i}`, 3)}-${h}`;
};

const node = (id, kind, needs = [], more = {}) => ({ id, kind, needs, ...more });

const ETL = [
  node("ingest", "group"),
  node("ingest/orders", "python", [], { pool: "warehouse" }),
  node("ingest/payments", "python"),
  node("ingest/customers", "http"),
  node("ingest/currency_rates", "http"),
  node("checks", "group"),
  node("checks/row_counts", "sql", ["ingest/orders", "ingest/payments"]),
  node("checks/no_negative_price", "sql", ["ingest/orders"]),
  node("checks/fresh_rates", "sql", ["ingest/currency_rates"]),
  node("stage", "python", [
    "checks/row_counts",
    "checks/no_negative_price",
    "checks/fresh_rates",
    "ingest/customers",
  ]),
  node("by_region", "python", ["stage"], { mapped: 12 }),
  node("load_warehouse", "sql", ["by_region"], { pool: "warehouse" }),
  node("report", "group"),
  node("report/daily_revenue", "sql", ["load_warehouse"]),
  node("report/top_customers", "sql", ["load_warehouse"]),
  node("report/publish", "shell", ["report/daily_revenue", "report/top_customers"]),
  node("notify", "http", ["report/publish"]),
];
const ML = [
  node("prepare", "python"),
  node("features", "python", ["prepare"]),
  node("trials", "python", ["features"], { mapped: 20 }),
  node("choose_best", "python", ["trials"]),
  node("train", "python", ["choose_best"]),
  node("evaluate", "python", ["train"]),
  node("approve_release", "approval", ["evaluate"]),
  node("register_model", "python", ["approve_release"]),
  node("deploy", "shell", ["register_model"]),
];
const SMALL = [
  node("extract", "python"),
  node("check", "sql", ["extract"]),
  node("load", "python", ["check"]),
];
const WIDE = [
  node("list_files", "python"),
  node("convert", "container", ["list_files"], { mapped: 99_997 }),
  node("merge", "python", ["convert"]),
  node("publish", "shell", ["merge"]),
];
const HUGE = Array.from({ length: 2000 }, (_, i) =>
  node(
    `model_${String(i).padStart(4, "0")}`,
    "sql",
    i < 60
      ? []
      : [
          ...new Set([
            Math.floor(i - 20 - chance("huge", i) * 40),
            Math.floor(i - 15 - chance("edge", i) * 44),
          ]),
        ].map((j) => `model_${String(Math.max(0, j)).padStart(4, "0")}`),
  ),
);

const NAMES = [
  "nightly_orders",
  "churn_model",
  "convert_scans",
  "dbt_all_models",
  "payments_reconcile",
  "clickstream_hourly",
  "inventory_sync",
  "fraud_features",
  "ad_spend_import",
  "customer_360",
  "weather_ingest",
  "flight_delays",
  "price_elasticity",
  "warehouse_vacuum",
  "gdpr_erasure",
  "search_index",
  "recommendations",
  "email_digest",
  "currency_rates",
  "sensor_rollup",
  "billing_export",
  "ledger_close",
  "catalog_refresh",
  "image_embeddings",
  "geo_tiles",
  "fleet_telemetry",
  "loyalty_points",
  "support_topics",
  "ab_test_report",
  "returns_forecast",
  "store_traffic",
  "supplier_scores",
  "tax_report",
  "call_transcripts",
  "partner_feed",
  "session_stitch",
  "stock_levels",
  "demand_plan",
  "survey_import",
  "audit_snapshot",
  "archive_logs",
  "quality_scores",
  "lead_scoring",
  "media_mix",
  "broken_report",
  "🚀 rocket ✨ metrics",
  "تقرير المبيعات اليومي",
  `long_${"name_".repeat(99)}`,
  "<script>alert('x')</script>",
  "never_ran",
];
const SCHEDULES = ["0 2 * * *", "*/15 * * * *", "@hourly", "0 6 * * 1", null, "30 4 * * *"];
const ZONES = ["Europe/Kyiv", "America/New_York", "UTC"];
const TAGS = ["finance", "ml", "ingest", "daily", "core", "export"];

export const workflows = NAMES.map((name, i) => {
  const nodes =
    i === 0
      ? ETL
      : i === 1
        ? ML
        : i === 2
          ? WIDE
          : i === 3
            ? HUGE
            : i % 5 === 0
              ? ETL
              : i % 7 === 0
                ? ML
                : SMALL;
  const schedule = name === "never_ran" ? null : SCHEDULES[i % SCHEDULES.length];
  return {
    name,
    index: i,
    nodes,
    leaves: nodes.filter((n) => n.kind !== "group"),
    dialect: i % 9 === 4 ? "airflow" : i % 11 === 6 ? "argo" : "native",
    tags: TAGS.filter((tag) => chance(name, tag) < 0.28),
    paused: i % 13 === 7,
    schedule,
    timezone: ZONES[i % 3],
    versions: ["a", "b", "c"].map((v) => hex(`${name}${v}`, 64)),
    error:
      name === "broken_report"
        ? { message: "no task is called extrat", line: 7, column: 12, at: iso(NOW - 2 * HOUR) }
        : null,
    description:
      i === 0 ? "Orders, payments and customers into the warehouse, checked, by region" : null,
  };
});
export const byName = new Map(workflows.map((w) => [w.name, w]));

export const PARAMS = {
  type: "object",
  required: ["region"],
  properties: {
    region: {
      type: "string",
      enum: ["eu", "us", "apac"],
      default: "eu",
      description: "Which region's orders",
    },
    day: { type: "string", format: "date", description: "Leave empty for the interval's day" },
    batch_size: { type: "integer", minimum: 1, maximum: 10000, default: 500 },
    full_refresh: { type: "boolean", title: "Full refresh", default: false },
    options: { type: "object", default: { threads: 4 } },
  },
};

const DIM = (w) => (w.index === 2 ? 20 : w.name === "never_ran" ? 0 : w.index === 3 ? 40 : 0);
const TOTAL = 10_000;
export const runs = [];
{
  const active = workflows.filter((w) => w.name !== "never_ran" && w.name !== "broken_report");
  const rest = active.filter((w) => DIM(w) === 0);
  for (let i = 0; i < TOTAL; i += 1) {
    const w =
      i < 60
        ? i % 20 === 2
          ? workflows[2]
          : i % 20 === 3
            ? workflows[3]
            : rest[i % 3 === 0 ? 0 : i % rest.length]
        : rest[chance("pick", i) < 0.16 ? 0 : Math.floor(chance("w", i) * rest.length)];
    const created = NOW - i * 4.1 * MINUTE - 3000;
    const p = chance("state", i);
    const state =
      i < 2
        ? "running"
        : i === 3
          ? "queued"
          : i === 6
            ? "paused"
            : i < 9
              ? "running"
              : p < 0.06
                ? "failed"
                : p < 0.075
                  ? "cancelled"
                  : "succeeded";
    const length =
      (0.6 + chance("len", i)) *
      (w.leaves.length > 100 ? 40 : w.leaves.length * 1.6) *
      MINUTE *
      (p > 0.97 ? 3 : 1);
    const finished = ["failed", "succeeded", "cancelled"].includes(state);
    const started = state === "queued" ? null : created + 900;
    const ended = finished ? Math.min(NOW - 2000, (started ?? created) + length * 0.2) : null;
    const slot = Math.floor(created / DAY) * DAY;
    runs.push({
      id: uuid(TOTAL - i),
      index: i,
      workflow: w,
      state,
      created,
      started,
      ended,
      trigger:
        chance("trig", i) < 0.8 && w.schedule
          ? "schedule"
          : chance("by", i) < 0.5
            ? "manual"
            : "api",
      version: w.versions[i < 400 ? 0 : i < 3000 ? 1 : 2],
      slot: w.schedule ? slot - DAY : null,
      note: null,
      labels: i % 6 === 0 ? { team: "data" } : {},
      generation: 0,
      message:
        state === "failed"
          ? "checks/no_negative_price failed: 3 rows have a price below zero"
          : null,
      params: {
        region: ["eu", "us", "apac"][i % 3],
        batch_size: 500 + (i % 4) * 250,
        full_refresh: i % 9 === 0,
      },
    });
  }
  // The run of 100,000 tasks is fixed: every test knows it.
  const big = runs.find((r) => r.workflow.index === 2);
  Object.assign(big, {
    state: "running",
    ended: null,
    message: null,
    started: NOW - 50 * MINUTE,
    created: NOW - 50.1 * MINUTE,
  });
}
export const runById = new Map(runs.map((r) => [r.id, r]));
export const bigRun = runs.find((r) => r.workflow.index === 2);

/** Task numbers of a run: leaves in order, a mapped node's instances after its summary. */
export function layoutOf(workflow) {
  if (workflow.layout) return workflow.layout;
  let next = 1;
  const places = workflow.leaves.map((n) => {
    const first = next;
    next += n.mapped ? n.mapped + 1 : 1;
    return { node: n, first };
  });
  workflow.layout = { places, total: next - 1 };
  return workflow.layout;
}

export const overrides = new Map();

export function placeOf(run, number) {
  const { places } = layoutOf(run.workflow);
  let [low, high] = [0, places.length - 1];
  while (low < high) {
    const mid = (low + high + 1) >> 1;
    if (places[mid].first <= number) low = mid;
    else high = mid - 1;
  }
  const place = places[low];
  const offset = number - place.first;
  if (offset > (place.node.mapped ?? 0)) return null;
  return {
    ...place,
    index: place.node.mapped && offset > 0 ? offset - 1 : null,
    summary: Boolean(place.node.mapped) && offset === 0,
  };
}

const step = (run, number) => {
  const { places } = layoutOf(run.workflow);
  return places.findIndex(
    (p, i) => p.first <= number && (places[i + 1]?.first ?? Infinity) > number,
  );
};

/** The state of one task, from its run's state and its place. */
export function taskState(run, number) {
  const set = overrides.get(`${run.id}.${number}`);
  if (set) return set.state;
  if (run.live) return "pending";
  const place = placeOf(run, number);
  const at = step(run, number) / Math.max(1, layoutOf(run.workflow).places.length);
  const p = chance(run.id, number);
  if (run === bigRun && place.node.mapped) {
    if (place.summary) return "running";
    if (place.index === 71_234 || place.index === 12) return "failed";
    if (place.index % 9001 === 500) return "retry_wait";
    return place.index < 72_000
      ? "succeeded"
      : place.index < 72_064
        ? "running"
        : place.index < 74_000
          ? "ready"
          : "pending";
  }
  if (run.state === "succeeded") return p < 0.02 && !place.node.mapped ? "skipped" : "succeeded";
  if (run.state === "queued") return "pending";
  const front = 0.35 + chance(run.id, "front") * 0.45;
  if (run.state === "failed") {
    if (at < front) return "succeeded";
    if (at < front + 0.12) return place.index !== null && p < 0.7 ? "succeeded" : "failed";
    return "upstream_failed";
  }
  if (run.state === "cancelled") return at < front ? "succeeded" : "cancelled";
  if (at < front - 0.05) return "succeeded";
  if (at < front + 0.12) {
    if (place.node.kind === "approval") return "suspended";
    if (place.node.pool && p < 0.6) return "ready";
    return p < 0.62 ? "running" : p < 0.8 ? "retry_wait" : p < 0.9 ? "rescheduled" : "queued";
  }
  return "pending";
}

const countCache = new Map();
export function forget(run) {
  countCache.delete(run.id);
}

export function nodeCounts(run, place) {
  const counts = {};
  const add = (state) => {
    counts[state] = (counts[state] ?? 0) + 1;
  };
  if (place.node.mapped)
    for (let i = 1; i <= place.node.mapped; i += 1) add(taskState(run, place.first + i));
  else add(taskState(run, place.first));
  return counts;
}

export function runCounts(run) {
  let known = countCache.get(run.id);
  if (!known) {
    known = { nodes: new Map(), all: {} };
    for (const place of layoutOf(run.workflow).places) {
      const counts = nodeCounts(run, place);
      known.nodes.set(place.node.id, counts);
      for (const [state, n] of Object.entries(counts))
        known.all[state] = (known.all[state] ?? 0) + n;
    }
    countCache.set(run.id, known);
  }
  return known;
}

const finishedTask = new Set(["succeeded", "failed", "skipped", "upstream_failed", "cancelled"]);

export function taskTimes(run, number) {
  const set = overrides.get(`${run.id}.${number}`);
  const state = taskState(run, number);
  if (set?.started !== undefined)
    return {
      state,
      created: run.created,
      ready: set.started,
      started: set.started,
      ended: set.ended ?? null,
    };
  const count = layoutOf(run.workflow).places.length;
  const whole = (run.ended ?? NOW) - (run.started ?? run.created);
  const at = step(run, number);
  const p = chance(run.id, number, "t");
  const from = (run.started ?? run.created) + (whole * at) / count;
  const ready = from + p * 400;
  const started =
    ["pending", "ready", "queued", "upstream_failed"].includes(state) ||
    (state === "cancelled" && p < 0.5)
      ? null
      : from + 800 + p * (whole / count) * 0.2;
  const ended =
    started !== null && finishedTask.has(state)
      ? started + (whole / count) * (0.3 + p * 0.5)
      : null;
  return {
    state,
    created: run.created,
    ready: state === "pending" ? null : ready,
    started: state === "skipped" ? null : started,
    ended: state === "upstream_failed" ? from : ended,
  };
}

export function taskView(run, number) {
  const place = placeOf(run, number);
  if (!place) return null;
  const t = taskTimes(run, number);
  const attempt =
    t.started === null
      ? 0
      : chance(run.id, number, "a") < 0.1 || t.state === "failed" || t.state === "retry_wait"
        ? 2
        : 1;
  const path = place.node.id;
  return {
    id: `${run.id}.${number}`,
    run: run.id,
    workflow: run.workflow.name,
    namespace: "default",
    name: path.split("/").at(-1),
    path,
    map_index: place.index,
    state: t.state,
    attempt: overrides.get(`${run.id}.${number}`)?.attempt ?? attempt,
    kind: place.node.kind,
    group: path.includes("/") ? path.split("/").slice(0, -1).join("/") : null,
    summary: place.summary,
    cause: t.state === "failed" ? "code" : t.state === "upstream_failed" ? "gate" : null,
    message:
      t.state === "failed"
        ? "exit code 1: 3 rows have a price below zero\nsee the log's last lines"
        : t.state === "upstream_failed"
          ? "a task that it depends on failed"
          : t.state === "retry_wait"
            ? "connection reset by peer; attempt 3 of 4 follows"
            : null,
    exit_code:
      t.state === "failed" ? 1 : t.state === "succeeded" && place.node.kind === "shell" ? 0 : null,
    priority: 0,
    created_at: iso(t.created),
    ready_at: iso(t.ready),
    started_at: iso(t.started),
    ended_at: iso(t.ended),
    due_at: t.state === "retry_wait" || t.state === "rescheduled" ? iso(NOW + 90_000) : null,
    label:
      place.index === null
        ? null
        : run === bigRun
          ? `scan-${String(place.index).padStart(6, "0")}.tif`
          : null,
  };
}

export const barView = (run) => ({
  id: run.id,
  state: run.state,
  created_at: iso(run.created),
  started_at: iso(run.started),
  ended_at: iso(run.ended),
  trigger: run.trigger,
  version: run.version,
  interval_start: iso(run.slot),
  interval_end: run.slot === null ? null : iso(run.slot + DAY),
  partition: null,
});

export const runView = (run) => ({
  ...barView(run),
  namespace: "default",
  workflow: run.workflow.name,
  dialect: run.workflow.dialect,
  cause: run.state === "failed" ? "code" : null,
  message: run.message,
  params: run.params,
  key: null,
  labels: run.labels,
  parent: null,
  priority: 0,
  generation: run.generation,
  counts: runCounts(run).all,
  total: layoutOf(run.workflow).total,
  note: run.note,
  backfill: null,
  open: false,
});

const runsOf = new Map();
export function runsOfWorkflow(w) {
  let list = runsOf.get(w.name);
  if (!list || list.length === 0 || list.stamp !== runs.length) {
    list = runs.filter((r) => r.workflow === w);
    list.stamp = runs.length;
    runsOf.set(w.name, list);
  }
  return list;
}

export function workflowView(w) {
  const list = runsOfWorkflow(w);
  return {
    namespace: "default",
    name: w.name,
    dialect: w.dialect,
    version: w.versions[0],
    description: w.description,
    tags: w.tags,
    paused: w.paused,
    task_count: w.leaves.length,
    created_at: iso(NOW - 200 * DAY),
    updated_at: iso(NOW - 27 * HOUR),
    error: w.error,
    schedule: w.schedule ? `${w.schedule} ${w.timezone}` : null,
    next_run_at: w.schedule ? iso(NOW + (5 + w.index * 11) * MINUTE) : null,
    active_runs: list.filter((r) => r.ended === null).length,
    last_runs: list.slice(0, 20).reverse().map(barView),
  };
}

export const SOURCE = `name: nightly_orders
schedule: {cron: "0 2 * * *", timezone: Europe/Kyiv, catchup: true}
params:
  region: {type: string, enum: [eu, us, apac], default: eu}
tasks:
  extract: {python: etl.extract, with: {day: "{{ interval.start | date }}"}, retries: {limit: 3}}
  check:   {sql: "select count(*) = 0 from staging where price < 0", needs: extrat}
  # the load waits for the check
  load:    {python: etl.load, needs: check, produces: [warehouse/orders]}
`;

const PREFIX = ["raw", "staging", "warehouse", "mart", "ml"];
export const assets = [];
for (let i = 0; i < 64; i += 1) {
  const level = Math.min(4, Math.floor(i / 14));
  const key =
    i === 20
      ? "events/hourly"
      : i === 21
        ? "sales/by_region"
        : `${PREFIX[level]}/${NAMES[i % 44].replace(/_.*/, "")}_${i}`;
  const p = chance("asset", i);
  assets.push({
    key,
    index: i,
    level,
    health: p < 0.08 ? "failed" : p < 0.16 ? "stale" : p < 0.2 ? "missing" : "ok",
    from:
      level === 0
        ? []
        : [0, 1]
            .map((k) => Math.floor(chance("from", i, k) * 14) + (level - 1) * 14)
            .filter((v, k, a) => v < i && a.indexOf(v) === k),
  });
}
export const HOURS = 100_000;

/** One line of a log, by its number. */
export function logLine(n, big) {
  const at = iso(NOW - 3 * HOUR + n * 9);
  const p = chance("line", n);
  if (big && n === 777_777)
    return {
      n,
      at,
      level: "error",
      stream: "err",
      text: "\u001b[31mERROR\u001b[0m needle: checksum differs in block 777777",
    };
  if (p < 0.0005)
    return {
      n,
      at,
      level: "error",
      stream: "err",
      text: `\u001b[1;31mERROR\u001b[0m [worker-${n % 7}] could not write row ${n}: duplicate key value violates unique constraint "orders_pkey"`,
    };
  if (p < 0.01)
    return {
      n,
      at,
      level: "warning",
      stream: "err",
      text: `\u001b[33mWARN\u001b[0m  retrying request ${n} after 200 ms <b>not markup</b> &amp; not an entity`,
    };
  if (p < 0.2)
    return {
      n,
      at,
      level: "debug",
      stream: "out",
      text: `\u001b[2mDEBUG\u001b[0m batch ${Math.floor(n / 50)} offset=${n} took=${(p * 90).toFixed(1)}ms`,
    };
  return {
    n,
    at,
    level: "info",
    stream: "out",
    text: `\u001b[32mINFO\u001b[0m  loaded ${n * 37} rows from \u001b[36ms3://lake/orders/part-${String(n % 512).padStart(5, "0")}.parquet\u001b[0m`,
  };
}
