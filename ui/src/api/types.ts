// The shapes of /api/v1 answers, as far as the pages read them.

import type { Counts } from "../model/states";

export type Instant = string;

export interface Page<T> {
  items: T[];
  next: string | null;
  total?: number;
}

export interface RunBar {
  id: string;
  state: string;
  created_at: Instant;
  started_at: Instant | null;
  ended_at: Instant | null;
  trigger: string;
  version: string;
  interval_start: Instant | null;
  interval_end: Instant | null;
  partition: string | null;
}

export interface Run extends RunBar {
  namespace: string;
  workflow: string;
  dialect: string;
  cause: string | null;
  message: string | null;
  params?: Record<string, unknown> | null;
  key: string | null;
  labels: Record<string, string>;
  parent: string | null;
  priority: number;
  generation: number;
  counts: Counts;
  total: number;
  note: string | null;
  backfill: string | null;
  open: boolean;
}

export interface TaskBrief {
  id: string;
  run: string;
  workflow: string;
  name: string;
  path: string;
  map_index: number | null;
  state: string;
  attempt: number;
}

export interface Task extends TaskBrief {
  namespace: string;
  kind: string;
  group: string | null;
  summary: boolean;
  cause: string | null;
  message: string | null;
  exit_code: number | null;
  priority: number;
  created_at: Instant;
  ready_at: Instant | null;
  started_at: Instant | null;
  ended_at: Instant | null;
  due_at: Instant | null;
  label: string | null;
}

export interface Neighbour {
  path: string;
  name: string;
  state: string;
  counts: Counts;
  task: string | null;
}

export interface TaskDetail extends Task {
  attempts: number;
  retry_limit: number | null;
  timeout_ms: number | null;
  rendered: { language: string; text: string } | null;
  inputs: unknown;
  outputs: { key: string; value: unknown; truncated: boolean }[];
  spec: unknown;
  upstream: Neighbour[];
  downstream: Neighbour[];
  limits: { name: string; units: number }[];
  produces: string[];
  approval: { prompt: string; fields: JsonSchema | null } | null;
}

export interface Attempt {
  attempt: number;
  launch: number;
  state: string;
  cause: string | null;
  message: string | null;
  exit_code: number | null;
  created_at: Instant;
  started_at: Instant | null;
  ended_at: Instant | null;
  worker: string | null;
  log: { lines: number; bytes: number } | null;
}

export interface Why {
  state: string;
  summary: string;
  reasons: {
    kind: string;
    met: boolean;
    text: string;
    hint: string | null;
    since: Instant | null;
    until: Instant | null;
    link: { kind: string; id: string } | null;
  }[];
}

export interface LogLine {
  n: number;
  at: Instant | null;
  level: string | null;
  stream: string;
  text: string;
  cut?: boolean;
}

export interface LogPage {
  lines: LogLine[];
  total: number;
  bytes: number;
  complete: boolean;
  first_error: number | null;
}

export interface LogMatches {
  count: number;
  complete: boolean;
  lines: number[];
  next: string | null;
}

export interface Artifact {
  id: string;
  name: string;
  key: string;
  media_type: string;
  size: number | null;
  hash: string | null;
  created_at: Instant | null;
  task: string;
  task_name: string;
  run: string;
  preview: "table" | "image" | "markdown" | "text" | "json" | "html" | "plot" | null;
}

export interface PlotValue {
  shape: string;
  x: unknown[];
  series: { name: string; values: (number | null)[] }[];
}

export interface Preview {
  kind: string;
  columns: { name: string; type: string | null }[];
  rows: unknown[][];
  total_rows: number | null;
  text: string | null;
  value: unknown;
  plot: PlotValue | null;
  truncated: boolean;
}

export interface WorkflowError {
  message: string;
  line: number | null;
  column: number | null;
  at?: Instant;
}

export interface Workflow {
  namespace: string;
  name: string;
  dialect: string;
  version: string;
  description: string | null;
  tags: string[];
  paused: boolean;
  task_count: number;
  created_at: Instant;
  updated_at: Instant;
  error: WorkflowError | null;
  schedule: string | null;
  next_run_at: Instant | null;
  active_runs: number;
  last_runs: RunBar[];
}

export interface JsonSchema {
  type?: string | string[];
  title?: string;
  description?: string;
  default?: unknown;
  enum?: unknown[];
  format?: string;
  properties?: Record<string, JsonSchema>;
  items?: JsonSchema;
  required?: string[];
  minimum?: number;
  maximum?: number;
  pattern?: string;
  minLength?: number;
  maxLength?: number;
}

export interface WorkflowDetail extends Workflow {
  params: JsonSchema | null;
  last_params: Record<string, unknown> | null;
  source: string | null;
  language: string;
  timezone: string | null;
  triggers: Trigger[];
  produces: string[];
  consumes: string[];
  max_active_runs: number | null;
  timeout_ms: number | null;
  partitions: Dimension[];
}

export interface Facet {
  value: string;
  count: number;
}

export interface WorkflowPage extends Page<Workflow> {
  facets?: { tags: Facet[]; dialects: Facet[] };
}

export interface Version {
  version: string;
  created_at: Instant;
  current: boolean;
  runs?: number | null;
}

export interface VersionDetail extends Version {
  source: string | null;
  language: string;
  params: JsonSchema | null;
}

export interface GridRow {
  path: string;
  name: string;
  depth: number;
  group: boolean;
  mapped: boolean;
  kind: string;
}

/** [state word's index, task number or -1, attempt, duration in ms or -1, tasks, failed tasks] */
export type GridCell = [number, number, number, number, number, number];

export interface Grid {
  rows: GridRow[];
  runs: RunBar[];
  cells: (GridCell | null)[][];
  states: string[];
  next: string | null;
}

export interface GraphNode {
  id: string;
  name: string;
  kind: string;
  parent: string | null;
  group: boolean;
  mapped: boolean;
  state: string | null;
  counts: Counts;
  total: number;
  task: string | null;
  attempt: number;
  started_at: Instant | null;
  ended_at: Instant | null;
  message: string | null;
  gate: string | null;
  condition: string | null;
}

export interface GraphEdge {
  from: string;
  to: string;
  class: string;
}

export interface Graph {
  nodes: GraphNode[];
  edges: GraphEdge[];
  seq?: number;
}

export interface TimelineItem {
  task: string;
  name: string;
  map_index: number | null;
  path: string;
  attempt: number;
  state: string;
  created_at: Instant;
  ready_at: Instant | null;
  queued_at: Instant | null;
  started_at: Instant | null;
  ended_at: Instant | null;
  waited: { kind: string; from: Instant; to: Instant | null; detail: string | null }[];
  critical: boolean;
}

export interface Timeline extends Page<TimelineItem> {
  start: Instant;
  end: Instant | null;
}

export interface Bulk {
  count: number;
  items: (TaskBrief & { becomes: string })[];
  truncated: boolean;
  refused: { id: string; message: string }[];
  runs: { id: string; workflow: string; state: string; becomes: string }[];
}

export interface RunsBulk {
  count: number;
  items: { id: string; workflow: string; state: string; ok: boolean; message: string | null }[];
  truncated: boolean;
}

export interface Asset {
  key: string;
  namespace: string;
  health: string;
  freshness: { status: string; due_at: Instant | null };
  last: { at: Instant; run: string | null; task: string | null; partition: string | null } | null;
  producers: string[];
  consumers: string[];
  checks: { passed: number; failed: number };
  partitions: { total: number; present: number; failed: number | null } | null;
}

export interface AssetDetail extends Asset {
  metadata: Record<string, unknown>;
  upstream: string[];
  downstream: string[];
  check_results: {
    name: string;
    passed: boolean;
    blocking: boolean;
    at: Instant;
    run: string | null;
    detail: string | null;
  }[];
}

export interface AssetGraph {
  nodes: Asset[];
  edges: { from: string; to: string; workflow: string }[];
  truncated: boolean;
}

export interface AssetEvent {
  seq: number;
  at: Instant;
  kind: string;
  partition: string | null;
  run: string | null;
  task: string | null;
  check: string | null;
  passed: boolean | null;
  detail: string | null;
  metadata: unknown;
}

export interface Dimension {
  name: string;
  kind: string;
  total: number;
  first: string | null;
  last: string | null;
  keys?: string[] | null;
}

export interface Partition {
  key: string;
  state: string;
  at: Instant | null;
  run: string | null;
}

export interface Partitions {
  dimensions: Dimension[];
  total: number;
  counts: Counts;
  items?: Partition[];
  buckets?: { offset: number; count: number; first: string; last: string; counts: Counts }[];
  next: string | null;
}

export interface Trigger {
  id: string;
  namespace: string;
  workflow: string;
  name: string | null;
  kind: string;
  text: string;
  timezone: string | null;
  paused: boolean;
  catchup: boolean;
  overlap: string;
  next_at: Instant | null;
  last: Decision | null;
  spec: unknown;
}

export interface Decision {
  at: Instant;
  slot: Instant | null;
  decision: string;
  reason: string | null;
  run: string | null;
}

export interface Backfill {
  id: string;
  namespace: string;
  workflow: string;
  state: string;
  from: Instant | null;
  to: Instant | null;
  partitions: number | null;
  order: string;
  parallelism: number;
  only: string;
  params: Record<string, unknown> | null;
  total: number;
  counts: Counts;
  created_at: Instant;
  created_by: string | null;
  ended_at: Instant | null;
  message: string | null;
}

export interface BackfillSlot {
  slot: Instant | null;
  interval_start: Instant | null;
  interval_end: Instant | null;
  partition: string | null;
  run: string | null;
  state: string;
}

export interface BackfillPreview {
  count: number;
  items: {
    interval_start: Instant | null;
    interval_end: Instant | null;
    partition: string | null;
    existing: { run: string; state: string } | null;
    action: string;
  }[];
  truncated: boolean;
  counts: Counts;
  warnings: string[];
}

export interface Limit {
  name: string;
  capacity: number;
  used: number;
  waiting: number;
  strict: boolean;
  description: string | null;
}

export interface LimitUser extends TaskBrief {
  units: number;
  since: Instant | null;
  priority: number;
  position: number | null;
}

export interface Connection {
  name: string;
  kind: string;
  description: string | null;
  fields: Record<string, unknown>;
  secrets: string[];
  updated_at: Instant | null;
}

export interface Variable {
  key: string;
  value: unknown;
  secret: boolean;
  description: string | null;
  updated_at: Instant | null;
}

export interface KobzaEvent {
  seq: number;
  at: Instant;
  kind: string;
  run: string | null;
  task: string | null;
  task_name: string | null;
  map_index: number | null;
  workflow: string | null;
  state: string | null;
  cause: string | null;
  attempt: number | null;
  by: string | null;
  text: string;
  detail: unknown;
}

export interface AuditEntry {
  seq: number;
  at: Instant;
  principal: string;
  action: string;
  target: string;
  result: string;
  detail: unknown;
}

export interface User {
  name: string;
  roles: Record<string, string>;
  created_at: Instant;
  disabled: boolean;
}

export interface Token {
  id: string;
  name: string;
  user: string | null;
  role: string;
  namespace: string | null;
  created_at: Instant;
  expires_at: Instant | null;
  last_used_at: Instant | null;
}

export interface Loop {
  name: string;
  status: string;
  last_at: Instant | null;
  lag_ms: number | null;
  detail: string | null;
}

export interface Health {
  status: string;
  version: string;
  now: Instant;
  started_at: Instant;
  store: { kind: string; detail: string };
  loops: Loop[];
  last_event: number;
  workflow_errors: number;
}

export interface Me {
  name: string;
  local: boolean;
  role: string;
  namespaces: string[];
}

export interface Summary {
  runs: Counts;
  tasks: Counts;
  running: Run[];
  failed: Run[];
  waiting: TaskBrief[];
  late: { workflow: string; trigger: string; due_at: Instant; late_ms: number; reason: string }[];
  upcoming: { workflow: string; trigger: string; at: Instant; text: string }[];
  history: { at: Instant; succeeded: number; failed: number; cancelled: number }[];
  workflow_errors: { name: string; message: string; line: number | null }[];
}

export interface SearchHit {
  kind: string;
  id: string;
  title: string;
  detail: string | null;
  state: string | null;
}
