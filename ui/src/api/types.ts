// The shapes of /api/v1 answers, as far as the pages read them.

import type { Counts } from "../model/states";
import type { components } from "./schema";

type Schema = components["schemas"];

export type Instant = string;

export interface Page<T> {
  items: T[];
  next: string | null;
  total?: number;
}

export type RunBar = Schema["RunBar"];

export type Run = Schema["Run"];

export type RunWorkers = Schema["RunWorkers"];
export type RunWorker = Schema["RunWorker"];
export type RunResource = Schema["RunResource"];

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

export type Task = Schema["Task"];

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
  outputs: { key: string; value: unknown; truncated: boolean }[];
  spec: unknown;
  upstream: Neighbour[];
  downstream: Neighbour[];
  limits: { name: string; units: number }[];
  produces: string[];
  approval: { prompt: string; fields: JsonSchema | null } | null;
}

export type RenderedTask = Schema["RenderedTask"];

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

export type Artifact = Schema["Artifact"];

export type PlotValue = Schema["PreviewPlot"];

export type Preview = Schema["Preview"];

export type WorkflowError = Schema["WorkflowError"];

export type Workflow = Schema["Workflow"];

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

export type Facet = Schema["Facet"];

export interface WorkflowPage extends Page<Workflow> {
  facets?: { tags: Facet[]; dialects: Facet[] };
}

export type Version = Schema["Version"];

export type VersionDetail = Schema["VersionDetail"];

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

export type Asset = Schema["Asset"];

export type AssetDetail = Schema["AssetDetail"];

export type AssetGraph = Schema["AssetGraph"];

export type AssetEvent = Schema["AssetEvent"];

export type Dimension = Schema["PartitionDimension"];

export type Partition = Schema["Partition"];

export type Partitions = Schema["PartitionsView"];

export type Trigger = Schema["Trigger"];

export type Decision = Schema["Decision"];

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
