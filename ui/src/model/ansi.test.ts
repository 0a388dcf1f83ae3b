import { describe, expect, it } from "vitest";
import { ansiSpans, findRanges, markSpans, plainText } from "./ansi";

const E = "\u001b";

describe("ansi", () => {
  it("makes spans of colours and weights", () => {
    expect(ansiSpans(`a ${E}[1;31mred${E}[0m b`)).toEqual([
      { text: "a ", style: "" },
      { text: "red", style: "a-f1 a-bold" },
      { text: " b", style: "" },
    ]);
  });

  it("knows bright colours, backgrounds, inverse and resets", () => {
    expect(ansiSpans(`${E}[92mx${E}[39my`)).toEqual([
      { text: "x", style: "a-f10" },
      { text: "y", style: "" },
    ]);
    expect(ansiSpans(`${E}[41mx`)[0]?.style).toBe("a-b1");
    expect(ansiSpans(`${E}[32;7mx`)[0]?.style).toBe("a-f0 a-b2");
    expect(ansiSpans(`${E}[1mx${E}[22my`)[1]?.style).toBe("");
  });

  it("brings 256 colours and true colour to the theme's sixteen", () => {
    expect(ansiSpans(`${E}[38;5;196mx`)[0]?.style).toMatch(/^a-f(1|9)$/);
    expect(ansiSpans(`${E}[38;2;0;0;250mx`)[0]?.style).toBe("a-f4");
    expect(ansiSpans(`${E}[38;5;999mx`)[0]?.style).toBe("");
  });

  it("drops every other sequence: cursor, titles, links, lone controls", () => {
    expect(
      plainText(`${E}[2K${E}[1Aup${E}]0;title\u0007 ${E}]8;;http://x${E}\\link${E}]8;;${E}\\`),
    ).toBe("up link");
    expect(plainText("a\u0000b\u0008c\u007f")).toBe("abc");
    expect(plainText(`cut off ${E}[`)).toBe("cut off ");
    expect(plainText(`${E}`)).toBe("");
  });

  it("keeps markup as text", () => {
    const hostile = `<img src=x onerror=alert(1)> &lt; ${E}[31m</span><script>`;
    expect(plainText(hostile)).toBe("<img src=x onerror=alert(1)> &lt; </span><script>");
  });

  it("shows what a terminal would after a carriage return", () => {
    expect(plainText("10 %\r50 %\r100 %")).toBe("100 %");
    expect(plainText("windows line\r")).toBe("windows line");
  });

  it("reads a long hostile line in time", () => {
    const began = performance.now();
    ansiSpans(`${E}[`.repeat(30_000));
    ansiSpans(`${E}]`.repeat(30_000));
    ansiSpans("1;".repeat(30_000));
    expect(performance.now() - began).toBeLessThan(1000);
  });
});

describe("marks", () => {
  it("cuts spans at the found ranges", () => {
    const spans = ansiSpans(`say ${E}[31mhello${E}[0m world`);
    expect(markSpans(spans, [[2, 6]])).toEqual([
      { text: "sa", style: "", marked: false },
      { text: "y ", style: "", marked: true },
      { text: "he", style: "a-f1", marked: true },
      { text: "llo", style: "a-f1", marked: false },
      { text: " world", style: "", marked: false },
    ]);
  });

  it("finds text, and patterns, and neither in a broken pattern", () => {
    const plain = { regex: false, matchCase: false };
    expect(findRanges("Error: error", "error", plain)).toEqual([
      [0, 5],
      [7, 12],
    ]);
    expect(findRanges("Error: error", "error", { ...plain, matchCase: true })).toEqual([[7, 12]]);
    expect(findRanges("a.b axb", "a.b", plain)).toEqual([[0, 3]]);
    expect(findRanges("a.b axb", "a.b", { ...plain, regex: true })).toHaveLength(2);
    expect(findRanges("x", "(", { ...plain, regex: true })).toEqual([]);
    expect(findRanges("xyz", "q*", { ...plain, regex: true })).toEqual([]);
  });
});
