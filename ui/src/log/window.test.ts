import { describe, expect, it } from "vitest";
import { contentHeight, firstLine, LINE_PX, scrollFor } from "./window";

describe("the log's window", () => {
  it("has a height that browsers can scroll", () => {
    expect(contentHeight(100, 600)).toBe(100 * LINE_PX);
    expect(contentHeight(3, 600)).toBe(600);
    expect(contentHeight(1_000_000, 600)).toBeLessThanOrEqual(8_000_000);
  });

  it.each([100, 5000, 1_000_000])("reaches both ends of %d lines", (total) => {
    const top = firstLine(0, total, 594);
    expect(top.first).toBe(0);
    const bottom = firstLine(contentHeight(total, 594) - 594, total, 594);
    expect(bottom.first + bottom.fit).toBeCloseTo(total);
  });

  it("goes to a line and is there", () => {
    for (const index of [0, 1, 777_776, 999_900]) {
      const scroll = scrollFor(index, 1_000_000, 594);
      expect(firstLine(scroll, 1_000_000, 594).first).toBeCloseTo(index, 3);
    }
  });

  it("shows all of a short log", () => {
    expect(firstLine(0, 5, 600).first).toBe(0);
    expect(scrollFor(3, 5, 600)).toBe(0);
  });
});
