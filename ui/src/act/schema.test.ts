import { describe, expect, it } from "vitest";
import type { JsonSchema } from "../api/types";
import { asCommand, fieldsOf, readForm } from "./schema";

const SCHEMA: JsonSchema = {
  type: "object",
  required: ["region", "name"],
  properties: {
    region: { type: "string", enum: ["eu", "us"], default: "eu" },
    name: { type: "string", minLength: 2, pattern: "^[a-z]+$" },
    size: { type: "integer", minimum: 1, maximum: 10 },
    rate: { type: ["number", "null"] },
    fresh: { type: "boolean", default: true },
    options: { type: "object", default: { threads: 4 } },
    level: { enum: [1, 2, "high"] },
  },
};

describe("parameter forms", () => {
  const fields = fieldsOf(SCHEMA, null);

  it("makes a field of each property", () => {
    expect(fields.map((f) => [f.name, f.kind, f.initial, f.required])).toEqual([
      ["region", "choice", "eu", false],
      ["name", "text", "", true],
      ["size", "integer", "", false],
      ["rate", "number", "", false],
      ["fresh", "boolean", "true", false],
      ["options", "json", '{\n  "threads": 4\n}', false],
      ["level", "choice", "", false],
    ]);
    expect(fieldsOf(null, null)).toEqual([]);
  });

  it("starts from the last run's values", () => {
    expect(
      fieldsOf(SCHEMA, { region: "us", fresh: false })
        .map((f) => f.initial)
        .slice(0, 5),
    ).toEqual(["us", "", "", "", "false"]);
  });

  it("reads typed values and leaves out what is empty", () => {
    const { values, errors } = readForm(fields, {
      name: "abc",
      size: "7",
      rate: "0.5",
      level: "2",
    });
    expect(errors).toEqual({});
    expect(values).toEqual({
      region: "eu",
      name: "abc",
      size: 7,
      rate: 0.5,
      fresh: true,
      options: { threads: 4 },
      level: 2,
    });
  });

  it.each([
    [{ name: "" }, "name", "A value is needed"],
    [{ name: "A1" }, "name", "Must match ^[a-z]+$"],
    [{ name: "a" }, "name", "At least 2 characters"],
    [{ size: "1.5" }, "size", "Not a whole number"],
    [{ size: "eleven" }, "size", "Not a number"],
    [{ size: "11" }, "size", "At most 10"],
    [{ options: "{" }, "options", "Not valid JSON"],
    [{ region: "mars" }, "region", "Not one of the choices"],
  ])("refuses %j", (texts, field, message) => {
    expect(readForm(fields, texts as Record<string, string>).errors[field]).toContain(message);
  });

  it("writes the same run as a command, quoted", () => {
    expect(asCommand("my flow", { region: "eu", note: "it's; rm -rf /", n: [1] })).toBe(
      "kobza runs start 'my flow' -p region=eu -p 'note=it'\\''s; rm -rf /' -p 'n=[1]'",
    );
  });
});
