import { describe, expect, it } from "vitest";
import {
  formatAxis,
  formatBytes,
  formatCount,
  formatDuration,
  formatDurationShort,
  formatRelative,
  spanMs,
} from "./duration";

describe("durations", () => {
  it.each([
    [0, "0ms"],
    [820, "820ms"],
    [999.6, "1000ms"],
    [1000, "1.0s"],
    [9_449, "9.4s"],
    [9_960, "10s"],
    [59_400, "59s"],
    [59_600, "1m 00s"],
    [249_000, "4m 09s"],
    [3_849_000, "1h 04m 09s"],
    [47 * 3_600_000, "47h 00m 00s"],
    [76 * 3_600_000, "3d 04h"],
    [-5000, "-5.0s"],
  ])("%d ms is %s", (ms, text) => {
    expect(formatDuration(ms)).toBe(text);
  });

  it("has a dash for what is not known", () => {
    expect(formatDuration(null)).toBe("–");
    expect(formatDuration(Number.NaN)).toBe("–");
  });

  it("is one figure on axes", () => {
    expect([400, 31_000, 120_000, 7_200_000, 259_200_000].map(formatDurationShort)).toEqual([
      "400ms",
      "31s",
      "2m",
      "2h",
      "3d",
    ]);
  });

  it("spans to now while there is no end, and never below zero", () => {
    const now = Date.parse("2026-11-23T10:00:10Z");
    expect(spanMs("2026-11-23T10:00:00Z", null, now)).toBe(10_000);
    expect(spanMs("2026-11-23T10:00:00Z", "2026-11-23T10:00:04Z", now)).toBe(4000);
    expect(spanMs("2026-11-23T10:00:20Z", null, now)).toBe(0);
    expect(spanMs(null, null, now)).toBeNull();
    expect(spanMs("tomorrow", null, now)).toBeNull();
  });

  it.each([
    [4_000, "now"],
    [12_000, "12 s ago"],
    [200_000, "3 min ago"],
    [7_300_000, "2 h ago"],
    [3 * 86_400_000, "3 d ago"],
    [-120_000, "in 2 min"],
  ])("%d ms before now is %s", (delta, text) => {
    expect(formatRelative(1_000_000_000_000 - delta, 1_000_000_000_000)).toBe(text);
  });

  it("shortens sizes and counts", () => {
    expect([0, 999, 1000, 48_210_442].map(formatBytes)).toEqual([
      "0 B",
      "999 B",
      "1.0 kB",
      "48 MB",
    ]);
    expect([12, 99_999, 100_000, 1_000_000, 12_400_000].map(formatCount)).toEqual([
      "12",
      "99,999",
      "100k",
      "1.0M",
      "12M",
    ]);
  });
});

describe("an axis", () => {
  it("tells neighbours apart", () => {
    expect([0, 500, 1000, 1500, 90_000, 120_000, 5_400_000, 129_600_000].map(formatAxis)).toEqual([
      "0s",
      "500ms",
      "1s",
      "1.5s",
      "1m 30s",
      "2m",
      "1h 30m",
      "1d 12h",
    ]);
  });
});
