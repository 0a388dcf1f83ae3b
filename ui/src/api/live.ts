// One event stream for the whole page. Events make cached answers old; what is on the screen is
// read again, gathered so that a busy server is not asked more often than the eye can follow.

import { useSyncExternalStore } from "react";
import { apiUrl, onReach } from "./client";
import { invalidate, queryClient } from "./hooks";
import type { KobzaEvent } from "./types";

export interface LiveStatus {
  state: "connecting" | "live" | "down";
  /** When the server was last heard. */
  heardAt: number;
  /** When it is tried again, while down. */
  retryAt: number | null;
  seq: number;
}

let status: LiveStatus = { state: "connecting", heardAt: Date.now(), retryAt: null, seq: 0 };
const statusListeners = new Set<() => void>();
const eventListeners = new Set<(events: KobzaEvent[]) => void>();

function setStatus(patch: Partial<LiveStatus>): void {
  status = { ...status, ...patch };
  for (const listener of statusListeners) listener();
}

export function useLive(): LiveStatus {
  return useSyncExternalStore(
    (listener) => {
      statusListeners.add(listener);
      return () => statusListeners.delete(listener);
    },
    () => status,
  );
}

export function onEvents(listener: (events: KobzaEvent[]) => void): () => void {
  eventListeners.add(listener);
  return () => eventListeners.delete(listener);
}

/** Address beginnings that an event makes old. */
export function touchedBy(event: KobzaEvent): string[] {
  const out: string[] = [];
  const run = event.run ? `/runs/${event.run}` : null;
  switch (event.kind) {
    case "task":
    case "expanded":
      if (run) out.push(run);
      if (event.task) out.push(`/tasks/${event.task}`);
      if (event.state === "suspended") out.push("/summary");
      break;
    case "run":
    case "cleared":
    case "marked":
      out.push("/runs", "/summary", "/workflows", "/backfills");
      if (event.task) out.push(`/tasks/${event.task}`);
      break;
    case "materialized":
    case "checked":
      out.push("/assets", "/assets-graph");
      break;
    case "workflow":
      out.push("/workflows", "/summary", "/triggers");
      break;
    case "trigger":
      out.push("/triggers", "/summary");
      break;
    case "backfill":
      out.push("/backfills");
      break;
    case "limit":
      out.push("/limits");
      break;
    default:
      if (run) out.push(run);
  }
  out.push("/events");
  return out;
}

// The first event after a quiet time is shown at once; then at most one reading a second, and less
// often while readings are slow.
const GATHER_MS = 1000;
const touched = new Set<string>();
let flushTimer: ReturnType<typeof setTimeout> | null = null;
let lastFlush = 0;

async function flush(): Promise<void> {
  flushTimer = null;
  const prefixes = [...touched];
  touched.clear();
  const began = Date.now();
  await invalidate(queryClient, prefixes);
  lastFlush = Date.now() + (Date.now() - began);
  if (touched.size > 0) schedule();
}

function schedule(): void {
  if (flushTimer !== null) return;
  const wait = Math.max(60, lastFlush + GATHER_MS - Date.now());
  flushTimer = setTimeout(() => void flush(), wait);
}

function touch(prefixes: string[]): void {
  for (const prefix of prefixes) touched.add(prefix);
  schedule();
}

let source: EventSource | null = null;
let watchedRun: string | null = null;
let retryTimer: ReturnType<typeof setTimeout> | null = null;
let failures = 0;

function received(data: string): void {
  const events = JSON.parse(data) as KobzaEvent[];
  const last = events.at(-1);
  if (last) setStatus({ seq: Math.max(status.seq, last.seq), heardAt: Date.now() });
  for (const listener of eventListeners) listener(events);
  touch([...new Set(events.flatMap(touchedBy))]);
}

function open(): void {
  close();
  const after = status.seq > 0 ? status.seq : undefined;
  const opened = new EventSource(apiUrl("/events/stream", { after, run: watchedRun }));
  source = opened;
  opened.addEventListener("hello", (message) => {
    const wasDown = status.state === "down";
    const { seq } = JSON.parse((message as MessageEvent<string>).data) as { seq: number };
    // A sequence that went back means another store: nothing known is good.
    const restarted = seq < status.seq;
    failures = 0;
    setStatus({
      state: "live",
      heardAt: Date.now(),
      retryAt: null,
      seq: restarted || status.seq === 0 ? seq : status.seq,
    });
    if (wasDown || restarted) void queryClient.invalidateQueries();
  });
  opened.addEventListener("events", (message) => received((message as MessageEvent<string>).data));
  opened.addEventListener("skipped", (message) => {
    const data = JSON.parse((message as MessageEvent<string>).data) as {
      to: number;
      runs: string[];
    };
    setStatus({ seq: Math.max(status.seq, data.to), heardAt: Date.now() });
    touch(["/runs", "/summary", "/workflows", "/events", "/tasks", "/assets", "/limits"]);
  });
  // A deleted run's events go with it: only this tells of it.
  opened.addEventListener("deleted", (message) => {
    const { runs } = JSON.parse((message as MessageEvent<string>).data) as { runs: string[] };
    setStatus({ heardAt: Date.now() });
    touch([...runs.map((run) => `/runs/${run}`), "/runs", "/summary", "/workflows"]);
  });
  opened.onerror = () => {
    // The browser's own retry does not say when; this one does.
    if (source === opened) down();
  };
}

function close(): void {
  source?.close();
  source = null;
}

function down(): void {
  close();
  if (retryTimer !== null) clearTimeout(retryTimer);
  const wait = Math.min(15_000, 500 * 2 ** failures);
  failures += 1;
  // One dropped connection is no dead server: the banner comes with the second failure.
  setStatus({ state: failures > 1 ? "down" : "connecting", retryAt: Date.now() + wait });
  retryTimer = setTimeout(open, wait);
}

export function retryNow(): void {
  if (retryTimer !== null) clearTimeout(retryTimer);
  open();
}

/** Task events of one run come only while it is looked at. */
export function watchRun(run: string | null): void {
  if (watchedRun === run) return;
  watchedRun = run;
  if (source) open();
}

let hiddenTimer: ReturnType<typeof setTimeout> | null = null;

/** Opens the stream. A hidden page gives its connection back after a while: browsers allow only
 * six to one server. */
export function startLive(): void {
  open();
  document.addEventListener("visibilitychange", () => {
    if (hiddenTimer !== null) clearTimeout(hiddenTimer);
    if (document.hidden) hiddenTimer = setTimeout(close, 20_000);
    else if (!source) open();
  });
  window.addEventListener("pagehide", close);
  onReach((ok) => {
    if (!ok && status.state === "live") {
      failures = Math.max(failures, 1);
      down();
    }
  });
}
