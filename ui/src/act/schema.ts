// A form's fields from a JSON Schema of parameters: texts in, typed values out.

import type { JsonSchema } from "../api/types";

export type FieldKind = "text" | "number" | "integer" | "boolean" | "choice" | "date" | "json";

export interface FormField {
  name: string;
  kind: FieldKind;
  title: string;
  help: string | null;
  required: boolean;
  choices: unknown[];
  initial: string;
  schema: JsonSchema;
}

function typeOf(schema: JsonSchema): string {
  if (Array.isArray(schema.type)) return schema.type.find((t) => t !== "null") ?? "string";
  return schema.type ?? (schema.properties ? "object" : "any");
}

export function kindOf(schema: JsonSchema): FieldKind {
  if (schema.enum) return "choice";
  switch (typeOf(schema)) {
    case "string":
      return schema.format === "date" ? "date" : "text";
    case "integer":
      return "integer";
    case "number":
      return "number";
    case "boolean":
      return "boolean";
    default:
      return "json";
  }
}

export function toText(value: unknown, kind: FieldKind): string {
  if (value === undefined || value === null) return kind === "boolean" ? "false" : "";
  if (kind === "json") return JSON.stringify(value, null, 2);
  return typeof value === "string" ? value : JSON.stringify(value);
}

export function fieldsOf(
  schema: JsonSchema | null,
  last: Record<string, unknown> | null,
): FormField[] {
  return Object.entries(schema?.properties ?? {}).map(([name, property]) => {
    const kind = kindOf(property);
    const value = last && Object.hasOwn(last, name) ? last[name] : property.default;
    return {
      name,
      kind,
      title: property.title ?? name,
      help: property.description ?? null,
      required: (schema?.required ?? []).includes(name) && property.default === undefined,
      choices: property.enum ?? [],
      initial: toText(value, kind),
      schema: property,
    };
  });
}

/** The typed value of a field, or what is wrong with its text. */
export function readField(field: FormField, text: string): { value: unknown } | { error: string } {
  const { schema } = field;
  if (text === "" && field.kind !== "text") {
    return field.required ? { error: "A value is needed" } : { value: undefined };
  }
  switch (field.kind) {
    case "boolean":
      return { value: text === "true" };
    case "number":
    case "integer": {
      const value = Number(text);
      if (!Number.isFinite(value)) return { error: "Not a number" };
      if (field.kind === "integer" && !Number.isInteger(value))
        return { error: "Not a whole number" };
      if (schema.minimum !== undefined && value < schema.minimum) {
        return { error: `At least ${schema.minimum}` };
      }
      if (schema.maximum !== undefined && value > schema.maximum) {
        return { error: `At most ${schema.maximum}` };
      }
      return { value };
    }
    case "choice": {
      const found = field.choices.find((choice) => toText(choice, "text") === text);
      return found === undefined ? { error: "Not one of the choices" } : { value: found };
    }
    case "json":
      try {
        return { value: JSON.parse(text) as unknown };
      } catch (error) {
        return { error: `Not valid JSON: ${(error as Error).message}` };
      }
    default: {
      if (text === "" && field.required) return { error: "A value is needed" };
      if (schema.minLength !== undefined && text.length < schema.minLength) {
        return { error: `At least ${schema.minLength} characters` };
      }
      if (schema.maxLength !== undefined && text.length > schema.maxLength) {
        return { error: `At most ${schema.maxLength} characters` };
      }
      if (schema.pattern !== undefined && !matches(schema.pattern, text)) {
        return { error: `Must match ${schema.pattern}` };
      }
      return { value: text };
    }
  }
}

function matches(pattern: string, text: string): boolean {
  try {
    return new RegExp(pattern, "u").test(text);
  } catch {
    // The server's flavour of pattern: it will judge.
    return true;
  }
}

/** All values, or the first errors by field. */
export function readForm(
  fields: FormField[],
  texts: Record<string, string>,
): { values: Record<string, unknown>; errors: Record<string, string> } {
  const values: Record<string, unknown> = {};
  const errors: Record<string, string> = {};
  for (const field of fields) {
    const read = readField(field, texts[field.name] ?? field.initial);
    if ("error" in read) errors[field.name] = read.error;
    else if (read.value !== undefined) values[field.name] = read.value;
  }
  return { values, errors };
}

function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** The same run from a terminal. */
export function asCommand(workflow: string, values: Record<string, unknown>): string {
  const words = ["kobza", "runs", "start", shellWord(workflow)];
  for (const [key, value] of Object.entries(values)) {
    words.push(
      "-p",
      shellWord(`${key}=${typeof value === "string" ? value : JSON.stringify(value)}`),
    );
  }
  return words.join(" ");
}
