import { describe, expect, it } from "vitest";
import {
  addCounts,
  barShares,
  countsText,
  isFinished,
  lookOf,
  orderedCounts,
  RUN_STATES,
  TASK_STATES,
  totalOf,
  wordOf,
  worstState,
} from "./states";

describe("states", () => {
  it("gives every state of runs and tasks its own word", () => {
    const words = [...new Set([...RUN_STATES, ...TASK_STATES])].map(wordOf);
    expect(new Set(words).size).toBe(words.length);
    expect(words).not.toContain("Unknown");
  });

  it("shows a state that it does not know by its own word", () => {
    expect(wordOf("put_to_sleep")).toBe("put to sleep");
    expect(lookOf("put_to_sleep")).toBe("pending");
    expect(isFinished("put_to_sleep")).toBe(false);
    // Not something inherited from Object.
    expect(wordOf("constructor")).toBe("constructor");
  });

  it("knows which states are final", () => {
    const final = TASK_STATES.filter(isFinished);
    expect(final).toEqual([
      "succeeded",
      "failed",
      "skipped",
      "upstream_failed",
      "cancelled",
      "removed",
    ]);
    expect(RUN_STATES.filter(isFinished)).toEqual(["succeeded", "failed", "cancelled"]);
  });

  it("puts what is wrong first", () => {
    expect(orderedCounts({ succeeded: 5, running: 2, failed: 1, skipped: 0 })).toEqual([
      ["failed", 1],
      ["running", 2],
      ["succeeded", 5],
    ]);
    expect(worstState({ succeeded: 99_999, failed: 1 })).toBe("failed");
    expect(worstState({})).toBeNull();
  });

  it("folds counts of mapped tasks and groups", () => {
    const sum = addCounts({ succeeded: 1 }, { succeeded: 2, running: 3 });
    expect(sum).toEqual({ succeeded: 3, running: 3 });
    expect(totalOf(sum)).toBe(6);
    expect(countsText(sum)).toBe("3 running, 3 succeeded");
    expect(countsText({})).toBe("none");
  });

  it("keeps one failure in 100,000 visible in a bar", () => {
    const shares = barShares({ succeeded: 99_999, failed: 1 });
    expect(shares.map((part) => part.state)).toEqual(["failed", "succeeded"]);
    expect(shares[0]?.share).toBeGreaterThan(0.025);
    expect(shares.reduce((sum, part) => sum + part.share, 0)).toBeCloseTo(1);
    expect(barShares({})).toEqual([]);
  });
});
