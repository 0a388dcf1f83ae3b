// Start a run with parameters: a form from the schema. What is typed survives a reload.

import { useNavigate } from "@tanstack/react-router";
import { useEffect, useMemo, useState } from "react";
import { ApiError, enc, request } from "../api/client";
import { useAction, useApi } from "../api/hooks";
import type { JsonSchema, WorkflowDetail } from "../api/types";
import { CopyButton, Dialog, Loading, Problem } from "../parts/basics";
import { asCommand, type FormField, fieldsOf, readForm } from "./schema";

function useDraft(key: string): [Record<string, string>, (next: Record<string, string>) => void] {
  const [draft, setDraft] = useState<Record<string, string>>(() => {
    try {
      return JSON.parse(sessionStorage.getItem(key) ?? "{}") as Record<string, string>;
    } catch {
      return {};
    }
  });
  useEffect(() => {
    try {
      if (Object.keys(draft).length > 0) sessionStorage.setItem(key, JSON.stringify(draft));
      else sessionStorage.removeItem(key);
    } catch {
      // A browser that keeps nothing: the draft lasts as long as the dialog.
    }
  }, [key, draft]);
  return [draft, setDraft];
}

export function SchemaFields({
  fields,
  texts,
  errors,
  onChange,
}: {
  fields: FormField[];
  texts: Record<string, string>;
  errors: Record<string, string>;
  onChange: (name: string, text: string) => void;
}) {
  return (
    <>
      {fields.map((field) => {
        const text = texts[field.name] ?? field.initial;
        const id = `param-${field.name}`;
        const error = errors[field.name];
        const common = {
          id,
          "aria-invalid": error ? true : undefined,
          "aria-describedby": `${id}-help`,
        };
        return (
          <div className="field" key={field.name}>
            {field.kind === "boolean" ? null : (
              <label htmlFor={id}>
                {field.title}
                {field.required ? <span className="quiet"> (needed)</span> : null}
              </label>
            )}
            {field.kind === "boolean" ? (
              <label className="check">
                <input
                  {...common}
                  type="checkbox"
                  checked={text === "true"}
                  onChange={(event) => onChange(field.name, String(event.target.checked))}
                />
                {field.title}
              </label>
            ) : field.kind === "choice" ? (
              <select
                {...common}
                className="select"
                value={text}
                onChange={(event) => onChange(field.name, event.target.value)}
              >
                {text === "" ? <option value="">Choose…</option> : null}
                {field.choices.map((choice) => {
                  const word = typeof choice === "string" ? choice : JSON.stringify(choice);
                  return (
                    <option key={word} value={word}>
                      {word}
                    </option>
                  );
                })}
              </select>
            ) : field.kind === "json" ? (
              <textarea
                {...common}
                className="input"
                rows={Math.min(10, Math.max(2, text.split("\n").length))}
                spellCheck={false}
                value={text}
                onChange={(event) => onChange(field.name, event.target.value)}
              />
            ) : (
              <input
                {...common}
                className="input"
                type={field.kind === "date" ? "date" : "text"}
                inputMode={
                  field.kind === "number" || field.kind === "integer" ? "decimal" : undefined
                }
                value={text}
                onChange={(event) => onChange(field.name, event.target.value)}
              />
            )}
            <div id={`${id}-help`}>
              {error ? <div className="field-error">{error}</div> : null}
              {field.help ? <div className="field-help">{field.help}</div> : null}
            </div>
          </div>
        );
      })}
    </>
  );
}

/** `from` starts from another run's parameters (rerun with changes). */
export function StartRunDialog({
  workflow,
  from,
  onClose,
}: {
  workflow: string;
  from?: Record<string, unknown> | null;
  onClose: () => void;
}) {
  const detail = useApi<WorkflowDetail>(`/workflows/${enc(workflow)}`);
  if (!detail.data) {
    return (
      <Dialog title={`Run ${workflow}`} onClose={onClose}>
        {detail.error ? (
          <Problem error={detail.error} retry={() => void detail.refetch()} />
        ) : (
          <Loading what="its parameters" />
        )}
      </Dialog>
    );
  }
  return <StartRunForm detail={detail.data} from={from ?? null} onClose={onClose} />;
}

function StartRunForm({
  detail,
  from,
  onClose,
}: {
  detail: WorkflowDetail;
  from: Record<string, unknown> | null;
  onClose: () => void;
}) {
  const navigate = useNavigate();
  const schema: JsonSchema | null = detail.params;
  const fields = useMemo(() => fieldsOf(schema, from), [schema, from]);
  const [texts, setTexts] = useDraft(`kobza.draft.run.${detail.namespace}.${detail.name}`);
  const [tried, setTried] = useState(false);
  const [note, setNote] = useState("");
  const { values, errors } = readForm(fields, texts);
  const start = useAction<{ id: string; state: string }>({
    run: (_, key) =>
      request(`/workflows/${enc(detail.name)}/runs`, {
        method: "POST",
        body: { params: values, ...(note ? { note } : {}) },
        idempotencyKey: key,
      }),
    quiet: true,
    touches: ["/runs", "/workflows", "/summary"],
    onSuccess: ({ id }) => {
      setTexts({});
      onClose();
      void navigate({ to: "/runs/$id", params: { id } });
    },
  });
  const served: Record<string, string> = {};
  if (start.error instanceof ApiError) {
    for (const field of start.error.fields) {
      served[field.path.replace(/^params\./, "")] = field.message;
    }
  }
  const last = detail.last_params;
  return (
    <Dialog
      title={`Run ${detail.name}`}
      onClose={onClose}
      onSubmit={() => {
        setTried(true);
        if (Object.keys(errors).length === 0) start.mutate();
      }}
      foot={
        <>
          <span className="grow">
            <CopyButton text={asCommand(detail.name, values)} label="Copy as command" />
          </span>
          <button type="button" className="button" onClick={onClose}>
            Not now
          </button>
          <button type="submit" className="button primary" disabled={start.isPending}>
            {start.isPending ? "Starting…" : "Start the run"}
          </button>
        </>
      }
    >
      {detail.paused ? (
        <p className="quiet">Its triggers are paused; a run by hand starts all the same.</p>
      ) : null}
      {fields.length === 0 ? <p className="quiet">This workflow takes no parameters.</p> : null}
      {last && fields.length > 0 ? (
        <div>
          <button
            type="button"
            className="button"
            onClick={() =>
              setTexts(
                Object.fromEntries(
                  fieldsOf(schema, last).map((field) => [field.name, field.initial]),
                ),
              )
            }
          >
            Use the last run's values
          </button>
        </div>
      ) : null}
      <SchemaFields
        fields={fields}
        texts={texts}
        errors={{ ...served, ...(tried ? errors : {}) }}
        onChange={(name, text) => setTexts({ ...texts, [name]: text })}
      />
      <div className="field">
        <label htmlFor="run-note">Note</label>
        <input
          id="run-note"
          className="input"
          value={note}
          maxLength={500}
          placeholder="Why this run"
          onChange={(event) => setNote(event.target.value)}
        />
      </div>
      {start.error ? <Problem error={start.error} /> : null}
    </Dialog>
  );
}
