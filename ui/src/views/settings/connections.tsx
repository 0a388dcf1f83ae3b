import { useState } from "react";
import { enc, request } from "../../api/client";
import { useAction, useList } from "../../api/hooks";
import type { Connection } from "../../api/types";
import { useAddress } from "../../parts/address";
import { Await, Dialog, Empty, Problem, SearchField } from "../../parts/basics";
import { State } from "../../parts/mark";
import { type Column, Table } from "../../parts/table";
import { Ago } from "../../parts/time";
import { useTitle } from "../../shell/crumbs";
import { readKeyValues } from "./key-values";

export function ConnectionsView() {
  useTitle("Connections", [{ key: "connections", node: "Connections" }]);
  const [search, set] = useAddress();
  const [editing, setEditing] = useState<Connection | "new" | null>(null);
  const list = useList<Connection>("/connections", {}, 500);
  const wanted = (search.q ?? "").toLowerCase();
  const rows = list.items.filter((c) => `${c.name} ${c.kind}`.toLowerCase().includes(wanted));
  const columns: Column<Connection>[] = [
    {
      key: "name",
      head: "Name",
      width: "minmax(100px, 0.8fr)",
      cell: (c) => <span className="strong mono">{c.name}</span>,
    },
    {
      key: "kind",
      head: "Kind",
      width: "90px",
      cell: (c) => <span className="chip">{c.kind}</span>,
    },
    {
      key: "where",
      head: "Where",
      wide: true,
      width: "minmax(0, 1.4fr)",
      cell: (c) => (
        <span className="mono quiet">
          {Object.entries(c.fields)
            .map(([key, value]) => `${key}=${String(value)}`)
            .join("  ")}
        </span>
      ),
    },
    {
      key: "secrets",
      head: "Secrets",
      wide: true,
      width: "150px",
      cell: (c) => (
        <span className="quiet">{c.secrets.map((s) => `${s} ••••`).join(", ") || "none"}</span>
      ),
    },
    { key: "at", head: "Changed", width: "84px", cell: (c) => <Ago at={c.updated_at} /> },
  ];
  return (
    <div className="view fixed">
      <div className="filters">
        <SearchField label="Name or kind" value={search.q ?? ""} onChange={(q) => set({ q })} />
        <span className="grow" />
        <button type="button" className="button" onClick={() => setEditing("new")}>
          New connection…
        </button>
      </div>
      <Await of={list} what="the connections">
        <div className="card fill">
          <Table
            label="Connections"
            columns={columns}
            rows={rows}
            rowKey={(c) => c.name}
            onOpen={setEditing}
            empty={
              <Empty title={wanted ? "No connection of that name" : "No connection yet"}>
                <p>
                  A connection keeps where a database or service is and its password, encrypted. A
                  task names it: <code>connection: warehouse</code>.
                </p>
              </Empty>
            }
          />
        </div>
      </Await>
      {editing ? (
        <ConnectionForm
          connection={editing === "new" ? null : editing}
          onClose={() => setEditing(null)}
        />
      ) : null}
    </div>
  );
}

const KINDS = ["postgres", "sqlite", "mysql", "http", "s3", "slack", "smtp", "generic"];

function ConnectionForm({
  connection,
  onClose,
}: {
  connection: Connection | null;
  onClose: () => void;
}) {
  const [name, setName] = useState(connection?.name ?? "");
  const [kind, setKind] = useState(connection?.kind ?? "postgres");
  const [description, setDescription] = useState(connection?.description ?? "");
  const [fields, setFields] = useState(
    Object.entries(connection?.fields ?? { host: "", database: "", user: "" })
      .map(([key, value]) => `${key}=${String(value)}`)
      .join("\n"),
  );
  const [secrets, setSecrets] = useState("");
  const path = `/connections/${enc(name.trim())}`;
  const parsed = readKeyValues(fields);
  const parsedSecrets = readKeyValues(secrets);
  const save = useAction<unknown>({
    run: (_, key) =>
      request(path, {
        method: "PUT",
        body: { kind, description: description || null, fields: parsed, secrets: parsedSecrets },
        idempotencyKey: key,
      }),
    quiet: true,
    touches: ["/connections"],
    done: `Connection ${name.trim()} kept`,
    onSuccess: onClose,
  });
  const remove = useAction<unknown>({
    run: (_, key) => request(path, { method: "DELETE", idempotencyKey: key }),
    quiet: true,
    touches: ["/connections"],
    done: `Connection ${name} removed`,
    onSuccess: onClose,
  });
  const test = useAction<{ ok: boolean; message: string; ms: number }>({
    run: (_, key) => request(`${path}/test`, { method: "POST", body: {}, idempotencyKey: key }),
    quiet: true,
  });
  const error = save.error ?? remove.error ?? test.error;
  return (
    <Dialog
      title={connection ? `Connection ${connection.name}` : "New connection"}
      onClose={onClose}
      onSubmit={() => name.trim() && save.mutate()}
      foot={
        <>
          {connection ? (
            <span className="grow row">
              <button type="button" className="button danger" onClick={() => remove.mutate()}>
                Remove
              </button>
              <button
                type="button"
                className="button"
                disabled={test.isPending}
                onClick={() => test.mutate()}
              >
                {test.isPending ? "Trying…" : "Test what is kept"}
              </button>
            </span>
          ) : null}
          <button type="button" className="button" onClick={onClose}>
            Leave as it is
          </button>
          <button
            type="submit"
            className="button primary"
            disabled={!name.trim() || save.isPending}
          >
            Keep the connection
          </button>
        </>
      }
    >
      {connection ? null : (
        <div className="field">
          <label htmlFor="c-name">Name</label>
          <input
            id="c-name"
            className="input"
            value={name}
            onChange={(e) => setName(e.target.value)}
          />
        </div>
      )}
      <div className="field">
        <label htmlFor="c-kind">Kind</label>
        <select
          id="c-kind"
          className="select"
          value={kind}
          onChange={(e) => setKind(e.target.value)}
        >
          {[...new Set([kind, ...KINDS])].map((word) => (
            <option key={word} value={word}>
              {word}
            </option>
          ))}
        </select>
      </div>
      <div className="field">
        <label htmlFor="c-fields">Where</label>
        <textarea
          id="c-fields"
          className="input"
          rows={4}
          spellCheck={false}
          value={fields}
          onChange={(e) => setFields(e.target.value)}
        />
        <div className="field-help">One key=value a line.</div>
      </div>
      <div className="field">
        <label htmlFor="c-secrets">Secrets</label>
        <textarea
          id="c-secrets"
          className="input"
          rows={2}
          spellCheck={false}
          autoComplete="off"
          placeholder="password=…"
          value={secrets}
          onChange={(e) => setSecrets(e.target.value)}
        />
        <div className="field-help">
          {connection && connection.secrets.length > 0
            ? `Kept already: ${connection.secrets.join(", ")}. Only what you write here changes; nobody can read them back.`
            : "Encrypted at rest; nobody can read them back. Or by reference: password=env:WAREHOUSE_PASSWORD."}
        </div>
      </div>
      <div className="field">
        <label htmlFor="c-description">For</label>
        <input
          id="c-description"
          className="input"
          value={description}
          maxLength={500}
          onChange={(e) => setDescription(e.target.value)}
        />
      </div>
      {test.data ? (
        <div className="row">
          <State
            state={test.data.ok ? "succeeded" : "failed"}
            word={test.data.ok ? "It works" : "It does not work"}
          />
          <span className="quiet">
            {test.data.message} ({test.data.ms} ms)
          </span>
        </div>
      ) : null}
      {error ? <Problem error={error} /> : null}
    </Dialog>
  );
}
