import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { KobzaEvent } from "./types";

const event = (more: Partial<KobzaEvent>): KobzaEvent => ({
  seq: 1,
  at: "2026-11-23T00:00:00Z",
  kind: "note",
  run: null,
  task: null,
  task_name: null,
  map_index: null,
  workflow: null,
  state: null,
  cause: null,
  attempt: null,
  by: null,
  text: "",
  detail: null,
  ...more,
});

class FakeSource {
  static all: FakeSource[] = [];
  listeners = new Map<string, (message: { data: string }) => void>();
  onerror: (() => void) | null = null;
  closed = false;
  constructor(readonly url: string) {
    FakeSource.all.push(this);
  }
  static get last(): FakeSource {
    return FakeSource.all.at(-1) as FakeSource;
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

beforeEach(() => {
  vi.resetModules();
  vi.useFakeTimers();
  FakeSource.all = [];
  vi.stubGlobal("EventSource", FakeSource);
});
afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

describe("what an event makes old", () => {
  it("is the run, its task and the feed for a task's event", async () => {
    const { touchedBy } = await import("./live");
    const touched = touchedBy(event({ kind: "task", run: "r", task: "r.1", state: "running" }));
    expect(touched).toEqual(["/runs/r", "/tasks/r.1", "/events"]);
  });

  it("is every list of runs for a run's event", async () => {
    const { touchedBy } = await import("./live");
    expect(touchedBy(event({ kind: "run", run: "r" }))).toEqual(
      expect.arrayContaining(["/runs", "/summary", "/workflows"]),
    );
  });
});

describe("the stream", () => {
  it("goes on after the last event that came, and says when the server is down", async () => {
    const live = await import("./live");
    const { renderHook, act } = await import("@testing-library/react");
    live.startLive();
    const { result } = renderHook(() => live.useLive());
    act(() => FakeSource.last.say("hello", { seq: 40 }));
    expect(result.current.state).toBe("live");
    act(() => FakeSource.last.say("events", [event({ seq: 41 }), event({ seq: 42 })]));
    expect(result.current.seq).toBe(42);
    // One dropped connection is tried again without a word.
    act(() => FakeSource.last.onerror?.());
    expect(result.current.state).toBe("connecting");
    act(() => vi.advanceTimersByTime(600));
    expect(FakeSource.last.url).toContain("after=42");
    // The second time it is said, and tried less and less often.
    act(() => FakeSource.last.onerror?.());
    expect(result.current.state).toBe("down");
    expect(result.current.retryAt).toBe(Date.now() + 1000);
    act(() => vi.advanceTimersByTime(1100));
    act(() => FakeSource.last.say("hello", { seq: 42 }));
    expect(result.current.state).toBe("live");
  });

  it("watches one run, and reads again from where it was", async () => {
    const live = await import("./live");
    live.startLive();
    FakeSource.last.say("hello", { seq: 7 });
    live.watchRun("abc");
    expect(FakeSource.last.url).toBe("/api/v1/events/stream?after=7&run=abc");
    expect(FakeSource.all[0]?.closed).toBe(true);
  });

  it("knows another store by its lower numbers", async () => {
    const live = await import("./live");
    const { renderHook, act } = await import("@testing-library/react");
    live.startLive();
    const { result } = renderHook(() => live.useLive());
    act(() => FakeSource.last.say("hello", { seq: 900 }));
    act(() => FakeSource.last.say("events", [event({ seq: 901 })]));
    live.retryNow();
    act(() => FakeSource.last.say("hello", { seq: 3 }));
    expect(result.current.seq).toBe(3);
  });
});
