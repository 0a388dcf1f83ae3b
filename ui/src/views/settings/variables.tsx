import { useState } from "react";
import { enc, request } from "../../api/client";
import { useAction, useList } from "../../api/hooks";
import type { Variable } from "../../api/types";
import { useAddress } from "../../parts/address";
import { Await, Dialog, Empty, Problem, SearchField } from "../../parts/basics";
import { type Column, Table } from "../../parts/table";
import { Ago } from "../../parts/time";
import { useTitle } from "../../shell/crumbs";

const shown = (value: unknown): string =>
  typeof value === "string" ? value : JSON.stringify(value);

export function VariablesView() {
  useTitle("Variables", [{ key: "variables", node: "Variables" }]);
  const [search, set] = useAddress();
  const [editing, setEditing] = useState<Variable | "new" | null>(null);
  const list = useList<Variable>("/variables", { q: search.q }, 200);
  const columns: Column<Variable>[] = [
    {
      key: "key",
      head: "Key",
      width: "minmax(110px, 0.8fr)",
      cell: (v) => <span className="strong mono">{v.key}</span>,
    },
    {
      key: "value",
      head: "Value",
      width: "minmax(0, 1.2fr)",
      cell: (v) =>
        v.secret ? (
          <span className="quiet">•••• secret</span>
        ) : (
          <span className="mono">{shown(v.value)}</span>
        ),
    },
    {
      key: "for",
      head: "For",
      wide: true,
      width: "minmax(0, 1fr)",
      cell: (v) => <span className="quiet">{v.description}</span>,
    },
    { key: "at", head: "Changed", width: "84px", cell: (v) => <Ago at={v.updated_at} /> },
  ];
  return (
    <div className="view fixed">
      <div className="filters">
        <SearchField label="Key" value={search.q ?? ""} onChange={(q) => set({ q })} />
        <span className="grow" />
        <button type="button" className="button" onClick={() => setEditing("new")}>
          New variable…
        </button>
      </div>
      <Await of={list} what="the variables">
        <div className="card fill">
          <Table
            label="Variables"
            columns={columns}
            rows={list.items}
            rowKey={(v) => v.key}
            more={list}
            onOpen={setEditing}
            empty={
              <Empty title={search.q ? "No variable of that key" : "No variable yet"}>
                <p>
                  A variable is a value that workflows share: <code>{"{{ var.region }}"}</code> in a
                  template reads it when the task starts.
                </p>
              </Empty>
            }
          />
        </div>
      </Await>
      {editing ? (
        <VariableForm
          variable={editing === "new" ? null : editing}
          onClose={() => setEditing(null)}
        />
      ) : null}
    </div>
  );
}

/** What is written as JSON is kept as JSON; anything else is text. */
export function readValue(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}

function VariableForm({ variable, onClose }: { variable: Variable | null; onClose: () => void }) {
  const [key, setKey] = useState(variable?.key ?? "");
  const [value, setValue] = useState(variable && !variable.secret ? shown(variable.value) : "");
  const [secret, setSecret] = useState(variable?.secret ?? false);
  const [description, setDescription] = useState(variable?.description ?? "");
  const path = `/variables/${enc(key.trim())}`;
  const save = useAction<unknown>({
    run: (_, idempotencyKey) =>
      request(path, {
        method: "PUT",
        body: {
          value: secret ? value : readValue(value),
          secret,
          description: description || null,
        },
        idempotencyKey,
      }),
    quiet: true,
    touches: ["/variables"],
    done: `Variable ${key.trim()} kept`,
    onSuccess: onClose,
  });
  const remove = useAction<unknown>({
    run: (_, idempotencyKey) => request(path, { method: "DELETE", idempotencyKey }),
    quiet: true,
    touches: ["/variables"],
    done: `Variable ${key} removed`,
    onSuccess: onClose,
  });
  const error = save.error ?? remove.error;
  return (
    <Dialog
      title={variable ? `Variable ${variable.key}` : "New variable"}
      onClose={onClose}
      onSubmit={() => key.trim() && save.mutate()}
      foot={
        <>
          {variable ? (
            <span className="grow">
              <button type="button" className="button danger" onClick={() => remove.mutate()}>
                Remove
              </button>
            </span>
          ) : null}
          <button type="button" className="button" onClick={onClose}>
            Leave as it is
          </button>
          <button type="submit" className="button primary" disabled={!key.trim() || save.isPending}>
            Keep the variable
          </button>
        </>
      }
    >
      {variable ? null : (
        <div className="field">
          <label htmlFor="v-key">Key</label>
          <input
            id="v-key"
            className="input"
            value={key}
            onChange={(e) => setKey(e.target.value)}
          />
        </div>
      )}
      <div className="field">
        <label htmlFor="v-value">Value</label>
        <textarea
          id="v-value"
          className="input"
          rows={4}
          spellCheck={false}
          placeholder={variable?.secret ? "Write a new one: the old cannot be read" : ""}
          value={value}
          onChange={(e) => setValue(e.target.value)}
        />
        <div className="field-help">JSON is kept as JSON, anything else as text.</div>
      </div>
      <label className="check">
        <input type="checkbox" checked={secret} onChange={(e) => setSecret(e.target.checked)} />
        Secret: encrypted, masked in logs, never shown again
      </label>
      <div className="field">
        <label htmlFor="v-for">For</label>
        <input
          id="v-for"
          className="input"
          value={description}
          maxLength={500}
          onChange={(e) => setDescription(e.target.value)}
        />
      </div>
      {error ? <Problem error={error} /> : null}
    </Dialog>
  );
}
