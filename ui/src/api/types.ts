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

export type TaskBrief = Schema["TaskBrief"];

export type Task = Schema["Task"];

export type Neighbour = Schema["Neighbour"];

/** What is asked is a JSON Schema. */
export type TaskDetail = Omit<Schema["TaskDetail"], "approval"> & {
  approval: (Omit<Schema["Approval"], "fields"> & { fields: JsonSchema | null }) | null;
};

export type RenderedTask = Schema["RenderedTask"];

export type Attempt = Schema["Attempt"];

export type Why = Schema["Why"];

export type LogLine = Schema["LogLine"];

export type LogPage = Schema["LogPage"];

export type LogMatches = Schema["LogMatches"];

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

export type GridRow = Schema["GridRow"];

/** [state word's index, task number or -1, attempt, duration in ms or -1, tasks, failed tasks] */
export type GridCell = [number, number, number, number, number, number];

export type Grid = Omit<Schema["Grid"], "cells"> & { cells: (GridCell | null)[][] };

/** Graphs of assets are drawn too, with states of their own. */
export type GraphNode = Omit<Schema["GraphNode"], "state" | "counts"> & {
  state: string | null;
  counts: Counts;
};

export type GraphEdge = Schema["GraphEdge"];

export type Graph = Omit<Schema["Graph"], "nodes"> & { nodes: GraphNode[] };

export type TimelineItem = Schema["TimelineItem"];

export type Timeline = Schema["Timeline"];

export type Bulk = Schema["TasksDone"];

export type RunsBulk = Schema["RunsDone"];

export type Asset = Schema["Asset"];

export type AssetDetail = Schema["AssetDetail"];

export type AssetGraph = Schema["AssetGraph"];

export type AssetEvent = Schema["AssetEvent"];

export type Dimension = Schema["PartitionDimension"];

export type Partition = Schema["Partition"];

export type Partitions = Schema["PartitionsView"];

export type Trigger = Schema["Trigger"];

export type Decision = Schema["Decision"];

export type Backfill = Schema["Backfill"];

export type BackfillSlot = Schema["BackfillSlot"];

export type BackfillPreview = Schema["BackfillPreview"];

export type Limit = Schema["Limit"];

export type LimitUser = Schema["LimitUser"];

export type Connection = Schema["Connection"];

export type Variable = Schema["Variable"];

export type KobzaEvent = Schema["Event"];

export type AuditEntry = Schema["AuditEntry"];

export type User = Schema["User"];

export type Token = Schema["Token"];

export type Loop = Schema["LoopHealth"];

/** Who may look at pages is told all of it. */
export type Health = Required<Schema["Health"]>;

export type Me = Schema["Me"];

export type Summary = Schema["Summary"];

export type SearchHit = Schema["SearchHit"];
