import { Link } from "@tanstack/react-router";
import { useState } from "react";
import { enc, request } from "../api/client";
import { useAction, useList } from "../api/hooks";
import type { Limit, LimitUser } from "../api/types";
import { formatCount } from "../model/duration";
import { useAddress } from "../parts/address";
import { Await, Dialog, Empty, Problem, SidePanel } from "../parts/basics";
import { Mark } from "../parts/mark";
import { type Column, Table } from "../parts/table";
import { Ago } from "../parts/time";
import { useTitle } from "../shell/crumbs";

export function LimitsView() {
  useTitle("Limits", [{ key: "limits", node: "Limits" }]);
  const [search, set] = useAddress();
  const [editing, setEditing] = useState<Limit | "new" | null>(null);
  const list = useList<Limit>("/limits", {}, 500);
  const columns: Column<Limit>[] = [
    {
      key: "name",
      head: "Limit",
      width: "minmax(110px, 1fr)",
      cell: (l) => (
        <span className="strong" dir="auto">
          {l.name}
        </span>
      ),
    },
    {
      key: "used",
      head: "Held",
      width: "minmax(130px, 1.2fr)",
      cell: (l) => (
        <span className="row">
          <span className={`meter grow${l.used >= l.capacity ? " full" : ""}`} aria-hidden>
            <i
              style={{
                width: `${l.capacity === 0 ? 100 : Math.min(100, (l.used / l.capacity) * 100)}%`,
              }}
            />
          </span>
          <span className="nowrap">
            {formatCount(l.used)} of {formatCount(l.capacity)}
          </span>
        </span>
      ),
    },
    {
      key: "waiting",
      head: "Wait",
      width: "70px",
      end: true,
      cell: (l) =>
        l.waiting > 0 ? (
          <span className="state look-waiting">
            <Mark state="retry_wait" /> {formatCount(l.waiting)}
          </span>
        ) : (
          <span className="quiet">0</span>
        ),
    },
    {
      key: "description",
      head: "For",
      wide: true,
      width: "minmax(0, 1.6fr)",
      cell: (l) => (
        <span className="quiet">
          {l.description}
          {l.strict ? " (strict order)" : ""}
        </span>
      ),
    },
    {
      key: "edit",
      head: <span className="hidden-visually">Change</span>,
      wide: true,
      width: "74px",
      cell: (l) => (
        <button type="button" className="button plain" onClick={() => setEditing(l)}>
          Change
        </button>
      ),
    },
  ];
  return (
    <div className="view fixed">
      <div className="filters">
        <span className="quiet grow">A limit caps how many tasks hold a thing at once.</span>
        <button type="button" className="button" onClick={() => setEditing("new")}>
          New limit…
        </button>
      </div>
      <Await of={list} what="the limits">
        <div className="card fill">
          <Table
            label="Limits"
            columns={columns}
            rows={list.items}
            rowKey={(l) => l.name}
            rowHeight={38}
            chosen={search.limit ?? null}
            onOpen={(l) => set({ limit: l.name }, true)}
            empty={
              <Empty title="No limit">
                <p>Give a database or a licence a limit, and tasks that name it wait their turn:</p>
                <pre>{`load: {python: etl.load, limits: {warehouse: 1}}`}</pre>
              </Empty>
            }
          />
        </div>
      </Await>
      {search.limit ? (
        <LimitPanel name={search.limit} onClose={() => set({ limit: undefined })} />
      ) : null}
      {editing ? (
        <LimitForm limit={editing === "new" ? null : editing} onClose={() => setEditing(null)} />
      ) : null}
    </div>
  );
}

function LimitPanel({ name, onClose }: { name: string; onClose: () => void }) {
  const holders = useList<LimitUser>(`/limits/${enc(name)}/holders`, {}, 200);
  const waiters = useList<LimitUser>(`/limits/${enc(name)}/waiters`, {}, 200);
  const line = (user: LimitUser) => (
    <Link key={user.id} to="/tasks/$id" params={{ id: user.id }} className="line">
      <Mark state={user.state} title={user.state} />
      <span className="strong cut">{user.workflow}</span>
      <span className="quiet cut grow">
        {user.path}
        {user.map_index === null ? "" : ` [${user.map_index}]`}
      </span>
      {user.units > 1 ? <span>× {user.units}</span> : null}
      <Ago at={user.since} />
    </Link>
  );
  return (
    <SidePanel label={`Limit ${name}`} onClose={onClose} head={<h2 className="cut">{name}</h2>}>
      <h2>Who holds it</h2>
      <Await of={holders} what="who holds it">
        <div className="card">
          {holders.items.map(line)}
          {holders.items.length === 0 ? <p className="line quiet">Nobody.</p> : null}
        </div>
      </Await>
      <h2>Who waits, first in line first</h2>
      <Await of={waiters} what="who waits">
        <div className="card">
          {waiters.items.map(line)}
          {waiters.items.length === 0 ? <p className="line quiet">Nobody.</p> : null}
          {waiters.hasNextPage ? (
            <button type="button" className="line" onClick={() => void waiters.fetchNextPage()}>
              Show more
            </button>
          ) : null}
        </div>
      </Await>
    </SidePanel>
  );
}

function LimitForm({ limit, onClose }: { limit: Limit | null; onClose: () => void }) {
  const [name, setName] = useState(limit?.name ?? "");
  const [capacity, setCapacity] = useState(String(limit?.capacity ?? 4));
  const [strict, setStrict] = useState(limit?.strict ?? false);
  const [description, setDescription] = useState(limit?.description ?? "");
  const number = Number(capacity);
  const valid = name.trim() !== "" && capacity !== "" && Number.isInteger(number) && number >= 0;
  const save = useAction<unknown>({
    run: (_, key) =>
      request(`/limits/${enc(name.trim())}`, {
        method: "PUT",
        body: { capacity: number, strict, description: description || null },
        idempotencyKey: key,
      }),
    quiet: true,
    touches: ["/limits"],
    done: `${name.trim()} now lets ${number} through`,
    onSuccess: onClose,
  });
  const remove = useAction<unknown>({
    run: (_, key) => request(`/limits/${enc(name)}`, { method: "DELETE", idempotencyKey: key }),
    quiet: true,
    touches: ["/limits"],
    done: `${name} removed`,
    onSuccess: onClose,
  });
  const error = save.error ?? remove.error;
  return (
    <Dialog
      title={limit ? `Limit ${limit.name}` : "New limit"}
      onClose={onClose}
      onSubmit={() => valid && save.mutate()}
      foot={
        <>
          {limit ? (
            <span className="grow">
              <button type="button" className="button danger" onClick={() => remove.mutate()}>
                Remove the limit
              </button>
            </span>
          ) : null}
          <button type="button" className="button" onClick={onClose}>
            Leave as it is
          </button>
          <button type="submit" className="button primary" disabled={!valid || save.isPending}>
            {limit ? "Change the limit" : "Make the limit"}
          </button>
        </>
      }
    >
      {limit ? null : (
        <div className="field">
          <label htmlFor="limit-name">Name</label>
          <input
            id="limit-name"
            className="input"
            value={name}
            onChange={(e) => setName(e.target.value)}
          />
        </div>
      )}
      <div className="field">
        <label htmlFor="limit-capacity">How many at once</label>
        <input
          id="limit-capacity"
          className="input"
          inputMode="numeric"
          aria-invalid={!Number.isInteger(number) || number < 0}
          value={capacity}
          onChange={(e) => setCapacity(e.target.value)}
        />
        <div className="field-help">
          What runs already goes on when you lower it. 0 holds all back.
        </div>
      </div>
      <label className="check">
        <input type="checkbox" checked={strict} onChange={(e) => setStrict(e.target.checked)} />
        Strict order: one that does not fit holds back those behind it
      </label>
      <div className="field">
        <label htmlFor="limit-for">For</label>
        <input
          id="limit-for"
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
