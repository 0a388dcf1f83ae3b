import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { LogStore } from "./log-store";

const TOTAL = 1_000_000;

class FakeSource {
  static last: FakeSource | null = null;
  listeners = new Map<string, (message: { data: string }) => void>();
  onerror: (() => void) | null = null;
  closed = false;
  constructor(readonly url: string) {
    FakeSource.last = this;
  }
  addEventListener(name: string, listener: (message: { data: string }) => void) {
    this.listeners.set(name, listener);
  }
  say(name: string, data: unknown) {
    this.listeners.get(name)?.({ data: JSON.stringify(data) });
  }
  close() {
    this.closed = true;
  }
}

const line = (n: number) => ({
  n,
  at: null,
  level: n % 100 === 0 ? "error" : "info",
  stream: "out",
  text: `line ${n}`,
});
let asked: number[] = [];
let total = TOTAL;
let complete = true;

beforeEach(() => {
  asked = [];
  total = TOTAL;
  complete = true;
  vi.stubGlobal("EventSource", FakeSource);
  vi.stubGlobal("fetch", async (url: string) => {
    const query = new URL(url, "http://x").searchParams;
    let from = Number(query.get("from"));
    asked.push(from);
    if (from < 0) from = Math.max(1, total + from + 1);
    const limit = Number(query.get("limit"));
    const lines = [];
    for (let n = from; n < from + limit && n <= total; n += 1) lines.push(line(n));
    return Response.json({ lines, total, bytes: 1, complete, first_error: 100 });
  });
});
afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

const settle = () => new Promise((done) => setTimeout(done, 0));

describe("the log store", () => {
  it("reads the end of a long log first, and only what is looked at", async () => {
    const store = new LogStore("/tasks/t/attempts/1");
    await store.start(null);
    expect(asked).toEqual([-400]);
    expect(store.line(TOTAL)?.text).toBe("line 1000000");
    expect(store.line(1)).toBeUndefined();
    store.want(500_001, 500_040);
    await settle();
    await settle();
    expect(asked).toEqual([-400, 500_001]);
    expect(store.line(500_001)?.text).toBe("line 500001");
    // What is here is not asked for again.
    store.want(500_500, 500_540);
    await settle();
    expect(asked).toHaveLength(2);
    store.stop();
  });

  it("begins around the line of the address", async () => {
    const store = new LogStore("/t");
    await store.start(777_777);
    expect(asked).toEqual([777_577]);
    expect(store.line(777_777)).toBeDefined();
    store.stop();
  });

  it("forgets blocks far away", async () => {
    const store = new LogStore("/t");
    await store.start(1);
    for (let n = 1; n < 90_000; n += 1000) {
      store.want(n, n + 10);
      await settle();
    }
    await settle();
    store.want(89_001, 89_010);
    expect(store.line(89_005)).toBeDefined();
    expect(store.line(5)).toBeUndefined();
    store.stop();
  });

  it("follows a growing log from its next line, and goes on where a broken stream stopped", async () => {
    vi.useFakeTimers();
    total = 10;
    complete = false;
    const store = new LogStore("/t");
    const starting = store.start(null);
    await vi.runAllTimersAsync();
    await starting;
    expect(FakeSource.last?.url).toContain("from=11");
    FakeSource.last?.say("lines", { lines: [line(11), line(12)], total: 12 });
    expect(store.state.total).toBe(12);
    expect(store.state.following).toBe(true);
    FakeSource.last?.onerror?.();
    expect(store.state.following).toBe(false);
    await vi.advanceTimersByTimeAsync(2000);
    expect(FakeSource.last?.url).toContain("from=13");
    FakeSource.last?.say("end", { total: 12, state: "succeeded" });
    expect(store.state.complete).toBe(true);
    expect(FakeSource.last?.closed).toBe(true);
    store.stop();
  });

  it("says what went wrong", async () => {
    vi.stubGlobal("fetch", async () =>
      Response.json(
        { error: { code: "not_found", message: "the log is gone", hint: "Retention deleted it." } },
        { status: 404 },
      ),
    );
    const store = new LogStore("/t");
    await store.start(null);
    expect(store.state.error?.message).toBe("the log is gone");
    store.stop();
  });
});
