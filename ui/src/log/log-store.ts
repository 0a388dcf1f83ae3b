// The lines of one attempt's log: read in blocks around what is looked at, followed while it grows.
// A log of a million lines costs the blocks that were seen.

import { apiUrl, request } from "../api/client";
import type { LogLine, LogPage } from "../api/types";

const BLOCK = 1000;
const BLOCKS_KEPT = 60;

export interface LogState {
  total: number;
  bytes: number;
  complete: boolean;
  firstError: number | null;
  loaded: boolean;
  error: Error | null;
  following: boolean;
  /** Grows with every change. */
  revision: number;
}

export class LogStore {
  private blocks = new Map<number, LogLine[]>();
  private wanted = new Set<number>();
  private listeners = new Set<() => void>();
  private source: EventSource | null = null;
  private stopped = false;
  private retryTimer: ReturnType<typeof setTimeout> | null = null;
  state: LogState = {
    total: 0,
    bytes: 0,
    complete: false,
    firstError: null,
    loaded: false,
    error: null,
    following: false,
    revision: 0,
  };

  constructor(private readonly path: string) {}

  subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  snapshot = (): LogState => this.state;

  private set(patch: Partial<LogState>): void {
    this.state = { ...this.state, ...patch, revision: this.state.revision + 1 };
    for (const listener of this.listeners) listener();
  }

  /** Reads the end (or around `at`), then follows if more may come. */
  async start(at: number | null): Promise<void> {
    this.stopped = false;
    try {
      const from = at === null ? -400 : Math.max(1, at - 200);
      const page = await request<LogPage>(`${this.path}/log`, { query: { from, limit: BLOCK } });
      if (this.stopped) return;
      this.put(page.lines);
      this.set({
        total: page.total,
        bytes: page.bytes,
        complete: page.complete,
        firstError: page.first_error,
        loaded: true,
        error: null,
      });
      if (!page.complete) this.follow();
    } catch (error) {
      if (!this.stopped) this.set({ loaded: true, error: error as Error });
    }
  }

  stop(): void {
    this.stopped = true;
    if (this.retryTimer !== null) clearTimeout(this.retryTimer);
    this.source?.close();
    this.source = null;
  }

  private follow(): void {
    if (this.stopped) return;
    const source = new EventSource(
      apiUrl(`${this.path}/log/stream`, { from: this.state.total + 1 }),
    );
    this.source = source;
    source.addEventListener("lines", (message) => {
      const data = JSON.parse((message as MessageEvent<string>).data) as {
        lines: LogLine[];
        total: number;
      };
      this.put(data.lines);
      const error = data.lines.find((line) => line.level === "error");
      this.set({
        total: Math.max(this.state.total, data.total),
        following: true,
        firstError: this.state.firstError ?? error?.n ?? null,
      });
    });
    source.addEventListener("end", (message) => {
      const data = JSON.parse((message as MessageEvent<string>).data) as { total: number };
      source.close();
      this.source = null;
      this.set({ total: Math.max(this.state.total, data.total), complete: true, following: false });
    });
    source.onerror = () => {
      source.close();
      this.set({ following: false });
      // From the last line that came, so that nothing is lost or shown twice.
      if (!this.stopped) this.retryTimer = setTimeout(() => this.follow(), 2000);
    };
  }

  /** Lines may overlap what is there and may begin inside a block. */
  put(lines: LogLine[]): void {
    for (const line of lines) {
      const key = Math.floor((line.n - 1) / BLOCK);
      let block = this.blocks.get(key);
      if (!block) {
        block = [];
        this.blocks.set(key, block);
      }
      block[(line.n - 1) % BLOCK] = line;
    }
  }

  /** Line `n`, from 1; undefined while it is not here. */
  line(n: number): LogLine | undefined {
    return this.blocks.get(Math.floor((n - 1) / BLOCK))?.[(n - 1) % BLOCK];
  }

  /** Asks for what is missing between two lines. */
  want(from: number, to: number): void {
    const last = Math.min(to, this.state.total);
    for (let key = Math.floor((from - 1) / BLOCK); key * BLOCK + 1 <= last; key += 1) {
      const begin = Math.max(from, key * BLOCK + 1);
      const end = Math.min(last, (key + 1) * BLOCK);
      let missing = false;
      for (let n = begin; n <= end && !missing; n += 1) missing = this.line(n) === undefined;
      if (missing && !this.wanted.has(key)) void this.read(key);
    }
    this.forget(Math.floor((from - 1) / BLOCK));
  }

  private async read(key: number): Promise<void> {
    this.wanted.add(key);
    try {
      const page = await request<LogPage>(`${this.path}/log`, {
        query: { from: key * BLOCK + 1, limit: BLOCK },
      });
      if (this.stopped) return;
      this.put(page.lines);
      this.wanted.delete(key);
      this.set({ total: Math.max(this.state.total, page.total), error: null });
    } catch (error) {
      if (!this.stopped) this.set({ error: error as Error });
      setTimeout(() => this.wanted.delete(key), 3000);
    }
  }

  private forget(around: number): void {
    if (this.blocks.size <= BLOCKS_KEPT) return;
    const far = [...this.blocks.keys()].sort((a, b) => Math.abs(b - around) - Math.abs(a - around));
    for (const key of far.slice(0, this.blocks.size - BLOCKS_KEPT)) this.blocks.delete(key);
  }
}
