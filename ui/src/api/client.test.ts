import { afterEach, describe, expect, it, vi } from "vitest";
import { ApiError, apiUrl, request, setNamespace } from "./client";

afterEach(() => {
  vi.unstubAllGlobals();
  setNamespace("default");
});

const failing = (status: number, body: string) =>
  vi.stubGlobal("fetch", async () => new Response(body, { status, statusText: "Oops" }));

describe("the client", () => {
  it("writes addresses with the namespace and without empty words", () => {
    expect(apiUrl("/runs", { state: "failed", q: "", limit: 5, x: undefined })).toBe(
      "/api/v1/runs?state=failed&limit=5",
    );
    setNamespace("team a");
    expect(apiUrl("/runs")).toBe("/api/v1/runs?namespace=team+a");
  });

  it("carries the server's message, hint and fields", async () => {
    failing(
      422,
      JSON.stringify({
        error: {
          code: "invalid",
          message: "does not parse",
          hint: "fix line 7",
          fields: [{ path: "tasks.load", line: 7, column: 1, message: "no such task" }],
        },
      }),
    );
    const error = await request("/workflows", { method: "POST", body: {} }).catch(
      (e: ApiError) => e,
    );
    expect(error).toBeInstanceOf(ApiError);
    expect(error).toMatchObject({ status: 422, hint: "fix line 7", message: "does not parse" });
    expect((error as ApiError).fields[0]?.line).toBe(7);
  });

  it("has words for an answer that is not the API's", async () => {
    failing(502, "<html>Bad gateway</html>");
    await expect(request("/runs")).rejects.toThrow("The server answered 502 Oops");
    failing(500, '{"error": 5}');
    await expect(request("/runs")).rejects.toThrow("The server answered 500");
  });

  it("says that nothing was changed when the server is not reached", async () => {
    vi.stubGlobal("fetch", async () => {
      throw new TypeError("fetch failed");
    });
    const error = (await request("/x", { method: "POST" }).catch((e) => e)) as ApiError;
    expect(error.unreachable).toBe(true);
    expect(error.hint).toBe("Nothing was changed; try again.");
  });

  it("marks writes, and keeps the idempotency key it is given", async () => {
    const seen: RequestInit[] = [];
    vi.stubGlobal("fetch", async (_: string, init: RequestInit) => {
      seen.push(init);
      return new Response(null, { status: 204 });
    });
    await request("/x", { method: "POST", body: { a: 1 }, idempotencyKey: "k" });
    await request("/x");
    expect(seen[0]?.headers).toMatchObject({ "x-kobza-csrf": "1", "idempotency-key": "k" });
    expect(seen[1]?.headers).not.toHaveProperty("idempotency-key");
  });
});
