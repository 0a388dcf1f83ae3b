import { describe, expect, it } from "vitest";
import { inside, ticks, toTime, toX, zoomed } from "./timeline-geometry";

const whole = { from: 1000, to: 11_000 };

describe("timeline", () => {
  it("maps time to place and back", () => {
    expect(toX(6000, whole, 500)).toBe(250);
    expect(toTime(250, whole, 500)).toBe(6000);
  });

  it("zooms around a point that stays where it is", () => {
    const span = zoomed(whole, whole, 3500, 0.5);
    expect(span.to - span.from).toBe(5000);
    expect(toX(3500, span, 1)).toBeCloseTo(toX(3500, whole, 1));
  });

  it("never leaves the whole, nor gets smaller than 10 ms", () => {
    expect(zoomed(whole, whole, 5000, 4)).toEqual(whole);
    const tiny = zoomed({ from: 5000, to: 5012 }, whole, 5005, 0.01);
    expect(tiny.to - tiny.from).toBe(10);
    expect(inside({ from: -5000, to: -4000 }, whole)).toEqual({ from: 1000, to: 2000 });
    expect(inside({ from: 50_000, to: 51_000 }, whole)).toEqual({ from: 10_000, to: 11_000 });
  });

  it("ticks at round offsets from the start", () => {
    expect(ticks(whole, 1000, 550)).toEqual([0, 2000, 4000, 6000, 8000, 10_000]);
    expect(ticks({ from: 1000, to: 61_000 }, 1000, 440)).toEqual([
      0, 15_000, 30_000, 45_000, 60_000,
    ]);
  });
});
