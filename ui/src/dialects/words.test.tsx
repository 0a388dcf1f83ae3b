import { render, screen } from "@testing-library/react";
import { describe, expect, it } from "vitest";
import { TASK_STATES } from "../model/states";
import { State } from "../parts/mark";
import { Dialect } from "./context";
import { NATIVE, upper, wordsOf } from "./words";

describe("words of a dialect", () => {
  it("are the native ones where the system has none of its own", () => {
    expect(wordsOf("native")).toBe(NATIVE);
    expect(wordsOf("constructor")).toBe(NATIVE);
    expect(wordsOf(undefined)).toBe(NATIVE);
    expect(wordsOf("argo").interval).toBe(null);
  });

  it("name states that exist", () => {
    for (const dialect of ["airflow", "argo", "luigi"]) {
      for (const state of Object.keys(wordsOf(dialect).states)) {
        expect(TASK_STATES).toContain(state);
      }
    }
  });

  it("speak inside of that system's workflows only", () => {
    render(
      <>
        <State state="retry_wait" />
        <Dialect of="airflow">
          <State state="retry_wait" />
        </Dialect>
      </>,
    );
    expect(screen.getByText("Waits to retry")).toBeDefined();
    expect(screen.getByText("Up for retry")).toBeDefined();
  });

  it("begin a line", () => {
    expect(upper("logical date")).toBe("Logical date");
    expect(upper("XCom")).toBe("XCom");
  });
});
