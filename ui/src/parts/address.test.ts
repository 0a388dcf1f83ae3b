import { describe, expect, it } from "vitest";
import { listOf, parseSearch, stringifySearch, toggled } from "./address";

describe("filters in the address", () => {
  it("round-trips plain words", () => {
    const search = { state: "failed,running", q: "a&b=c #1", since: "2026-11-23T00:00:00Z" };
    const text = stringifySearch(search);
    expect(text).toBe(
      "?state=failed,running&q=a%26b%3Dc+%231&since=2026-11-23T00:00:00Z".replace("%3D", "%3D"),
    );
    expect(parseSearch(text)).toEqual(search);
  });

  it("round-trips emoji, right-to-left text and quotes", () => {
    const search = { q: `🚀 "تقرير" <b>` };
    expect(parseSearch(stringifySearch(search))).toEqual(search);
  });

  it("leaves out what is empty", () => {
    expect(stringifySearch({ q: "", state: undefined, sort: null })).toBe("");
    expect(parseSearch("?q=&state=failed")).toEqual({ state: "failed" });
  });

  it("does not let an address reach the prototype", () => {
    parseSearch("?__proto__=x&constructor=y");
    expect(({} as Record<string, unknown>).x).toBeUndefined();
    expect(Object.getPrototypeOf(parseSearch("?__proto__=x"))).toBe(Object.prototype);
  });

  it("toggles a word of a list", () => {
    expect(toggled(undefined, "failed")).toBe("failed");
    expect(toggled("failed", "running")).toBe("failed,running");
    expect(toggled("failed,running", "failed")).toBe("running");
    expect(listOf("a,,b")).toEqual(["a", "b"]);
  });
});
