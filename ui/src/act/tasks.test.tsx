import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { fireEvent, render, screen, waitFor } from "@testing-library/react";
import { afterEach, describe, expect, it, vi } from "vitest";
import { TaskActionDialog } from "./tasks";

interface Sent {
  body: Record<string, unknown>;
  key: string | null;
}

function server(answers: (body: Record<string, unknown>) => { status?: number; body: unknown }) {
  const sent: Sent[] = [];
  vi.stubGlobal("fetch", async (_: string, init: RequestInit) => {
    const body = JSON.parse(String(init.body)) as Record<string, unknown>;
    sent.push({ body, key: new Headers(init.headers).get("idempotency-key") });
    const answer = answers(body);
    return Response.json(answer.body, { status: answer.status ?? 200 });
  });
  return sent;
}

const applied = (sent: Sent[]) => sent.findLast((s) => s.body.dry_run === false);

const item = (n: number, becomes = "pending") => ({
  id: `r.${n}`,
  run: "r",
  workflow: "w",
  name: `task ${n}`,
  path: `task ${n}`,
  map_index: null,
  state: "failed",
  attempt: 1,
  becomes,
});
const bulk = (n: number) => ({
  count: n,
  items: Array.from({ length: n }, (_, i) => item(i)),
  truncated: false,
  refused: [],
  runs: [{ id: "r", workflow: "w", state: "failed", becomes: "running" }],
});

const show = (onClose = () => {}) =>
  render(
    <QueryClientProvider client={new QueryClient()}>
      <TaskActionDialog action="clear" target={{ ids: ["r.1"] }} onClose={onClose} />
    </QueryClientProvider>,
  );

afterEach(() => vi.unstubAllGlobals());

describe("rerunning tasks", () => {
  it("shows what will change, and says it on the button", async () => {
    const sent = server((body) => ({ body: bulk(body.downstream ? 14 : 1) }));
    const closed = vi.fn();
    show(closed);
    const button = await screen.findByRole("button", { name: "Rerun 14 tasks" });
    expect(sent[0]?.body).toMatchObject({
      action: "clear",
      ids: ["r.1"],
      downstream: true,
      dry_run: true,
    });
    expect(screen.getAllByText(/^task \d+$/)).toHaveLength(14);
    fireEvent.click(screen.getByLabelText("and what depends on them"));
    await screen.findByRole("button", { name: "Rerun 1 task" });
    fireEvent.click(screen.getByLabelText("and what depends on them"));
    await screen.findByRole("button", { name: "Rerun 14 tasks" });
    fireEvent.change(screen.getByLabelText(/Reason/), { target: { value: "late file came" } });
    fireEvent.click(button);
    await waitFor(() => expect(closed).toHaveBeenCalled());
    expect(applied(sent)?.body).toMatchObject({ dry_run: false, reason: "late file came" });
  });

  it("keeps what was typed, and its key, when the server does not answer", async () => {
    const sent = server(() => ({ body: bulk(2) }));
    const answering = globalThis.fetch;
    const closed = vi.fn();
    show(closed);
    const button = await screen.findByRole("button", { name: "Rerun 2 tasks" });
    fireEvent.change(screen.getByLabelText(/Reason/), { target: { value: "kept" } });
    let lost: string | null = null;
    vi.stubGlobal("fetch", async (_: string, init: RequestInit) => {
      lost = new Headers(init.headers).get("idempotency-key");
      throw new TypeError("connection refused");
    });
    fireEvent.click(button);
    await screen.findByText("The server does not answer.");
    expect(closed).not.toHaveBeenCalled();
    expect((screen.getByLabelText(/Reason/) as HTMLInputElement).value).toBe("kept");
    vi.stubGlobal("fetch", answering);
    fireEvent.click(screen.getByRole("button", { name: "Rerun 2 tasks" }));
    await waitFor(() => expect(closed).toHaveBeenCalled());
    // It may have arrived the first time: the same key makes it count once.
    expect(applied(sent)?.key).toBe(lost);
  });

  it("cannot do what would change nothing", async () => {
    server(() => ({ body: { ...bulk(0), refused: [{ id: "r.1", message: "it still runs" }] } }));
    show();
    await screen.findByText("Nothing would change: it still runs");
    expect(
      (screen.getByRole("button", { name: "Rerun 0 tasks" }) as HTMLButtonElement).disabled,
    ).toBe(true);
  });

  it("shows why the server refused", async () => {
    server((body) =>
      body.dry_run
        ? { body: bulk(1) }
        : {
            status: 409,
            body: {
              error: {
                code: "conflict",
                message: "olena reran it at 10:02",
                hint: "Look at its new attempt.",
                fields: [],
              },
            },
          },
    );
    show();
    fireEvent.click(await screen.findByRole("button", { name: "Rerun 1 task" }));
    await screen.findByText("olena reran it at 10:02");
    expect(screen.getByText("Look at its new attempt.")).toBeDefined();
  });
});
