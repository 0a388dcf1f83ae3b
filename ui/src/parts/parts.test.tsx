import { render, screen } from "@testing-library/react";
import { describe, expect, it } from "vitest";
import { ApiError } from "../api/client";
import { TASK_STATES } from "../model/states";
import { Problem } from "./basics";
import { HistoryChart } from "./history-chart";
import { CountsBar, Mark, State } from "./mark";
import Markdown from "./markdown";
import { axisTicks, Plot } from "./plot";
import { barHeights } from "./run-bars";
import { Value } from "./value";

describe("marks", () => {
  it("has a shape of its own for each look, so that colour never speaks alone", () => {
    const shapes = new Map<string, string>();
    for (const state of TASK_STATES) {
      const { container, unmount } = render(<Mark state={state} />);
      const svg = container.querySelector("svg");
      const look = svg?.getAttribute("class") ?? "";
      const shape = svg?.innerHTML ?? "";
      expect(shape).not.toBe("");
      for (const [otherLook, otherShape] of shapes) {
        if (otherLook !== look) expect(otherShape).not.toBe(shape);
      }
      shapes.set(look, shape);
      unmount();
    }
  });

  it("says its state", () => {
    render(<State state="upstream_failed" />);
    expect(screen.getByText("Upstream failed")).toBeDefined();
    render(<Mark state="failed" title="Failed" />);
    expect(screen.getByRole("img", { name: "Failed" })).toBeDefined();
  });

  it("reads a bar of counts aloud", () => {
    render(<CountsBar counts={{ succeeded: 99_999, failed: 1 }} />);
    expect(
      screen.getByRole("img", { name: "100000 tasks: 1 failed, 99,999 succeeded" }),
    ).toBeDefined();
  });

  it("keeps short runs visible beside long ones", () => {
    expect(barHeights([3_600_000, 60_000, null])).toEqual([1, 0.16, 0.16]);
  });
});

describe("errors", () => {
  it("say what, where and what to do", () => {
    const error = new ApiError(
      422,
      "workflow_invalid",
      "the workflow does not parse",
      "Fix line 7.",
      [{ path: "tasks.check.needs", line: 7, column: 12, message: "no task is called extrat" }],
    );
    render(<Problem error={error} />);
    const alert = screen.getByRole("alert");
    expect(alert.textContent).toContain("the workflow does not parse");
    expect(alert.textContent).toContain("Fix line 7.");
    expect(alert.textContent).toContain("7:12");
    expect(alert.textContent).toContain("no task is called extrat");
  });
});

describe("markdown", () => {
  it("makes elements and never markup", () => {
    const { container } = render(
      <Markdown
        text={
          "# Report\n\n**84** <img src=x onerror=alert(1)> `code`\n\n- a\n- b\n\n[ok](https://x.org) [bad](javascript:alert(1))\n\n| a | b |\n|---|---|\n| 1 | <b>2</b> |\n\n```\n<script>x</script>\n```"
        }
      />,
    );
    expect(container.querySelector("img, script, b")).toBeNull();
    expect(container.querySelector("strong")?.textContent).toBe("84");
    expect(container.querySelectorAll("li")).toHaveLength(2);
    expect(container.querySelectorAll("a")).toHaveLength(1);
    expect(container.querySelector("pre")?.textContent).toBe("<script>x</script>");
    expect(container.querySelector("td:last-child")?.textContent).toBe("<b>2</b>");
    expect(container.textContent).toContain("[bad](javascript:alert(1))");
  });
});

describe("plots and charts", () => {
  it("ticks at round values", () => {
    expect(axisTicks(0, 1)).toEqual(
      [0, 0.2, 0.4, 0.6000000000000001, 0.8, 1].map((n) => expect.closeTo(n)),
    );
    expect(axisTicks(5, 5)).toEqual([5]);
  });

  it("has words where there is nothing to draw", () => {
    render(<Plot value={{ shape: "line", x: [], series: [{ name: "loss", values: [] }] }} />);
    expect(screen.getByText("The plot has no points.")).toBeDefined();
  });

  it("leaves a gap where there is no value, and names places that are no numbers", () => {
    const { container } = render(
      <>
        <Plot
          value={{
            shape: "line",
            x: [1, 2, 3, 4],
            series: [{ name: "loss", values: [1, 2, null, 3] }],
          }}
        />
        <Plot value={{ shape: "bar", x: ["mon"], series: [{ name: "n", values: [4] }] }} />
      </>,
    );
    expect(container.querySelectorAll("polyline")).toHaveLength(1);
    expect(container.querySelectorAll("circle")).toHaveLength(1);
    expect(screen.getByText("mon")).toBeDefined();
  });

  it("reads a day's history aloud", () => {
    render(
      <HistoryChart
        hours={[
          { at: "2026-11-23T00:00:00Z", succeeded: 5, failed: 1, cancelled: 0 },
          { at: "2026-11-23T01:00:00Z", succeeded: 2, failed: 0, cancelled: 0 },
        ]}
      />,
    );
    expect(
      screen.getByRole("img", {
        name: "Finished runs by hour: 8 in all, 1 failed, at most 6 in an hour",
      }),
    ).toBeDefined();
  });
});

describe("values", () => {
  it("folds what is long", () => {
    render(<Value value={Array.from({ length: 50 }, (_, i) => i)} />);
    expect(screen.getByRole("button", { name: "Show all 52 lines" })).toBeDefined();
  });

  it("shows text as text", () => {
    const { container } = render(<Value value={"<b>x</b>"} />);
    expect(container.querySelector("b")).toBeNull();
    expect(container.textContent).toBe("<b>x</b>");
  });
});
