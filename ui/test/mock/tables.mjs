// Small tables: limits, variables, connections, users, triggers, backfills, artifacts.

import * as d from "./data.mjs";

export const limits = [
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
export const variables = Array.from({ length: 14 }, (_, i) => ({
  key: ["region", "bucket", "alert_channel", "api_token"][i % 4] + (i > 3 ? `_${i}` : ""),
  value: i % 4 === 3 ? null : i % 4 === 0 ? "eu" : { name: "lake", prefix: i },
  secret: i % 4 === 3,
  description: null,
  updated_at: d.iso(d.NOW - i * 9_000_000),
}));
export const connections = ["warehouse", "lake", "slack_alerts", "billing_api"].map((name, i) => ({
  name,
  kind: ["postgres", "s3", "slack", "http"][i],
  description: null,
  fields: { host: `${name}.internal`, user: "kobza" },
  secrets: ["password"],
  updated_at: d.iso(d.NOW - i * 80_000_000),
}));
export const users = [
  {
    name: "olena",
    roles: { default: "admin" },
    created_at: d.iso(d.NOW - 90 * d.DAY),
    disabled: false,
  },
];
export const tokens = [
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
export const backfills = [
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
export const triggers = d.workflows
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

export const artifacts = (run, task) =>
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
export const PREVIEWS = {
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
