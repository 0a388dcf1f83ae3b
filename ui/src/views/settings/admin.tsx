import { useState } from "react";
import { enc, request } from "../../api/client";
import { useAction, useApi, useList } from "../../api/hooks";
import type { AuditEntry, Health, Me, Token, User } from "../../api/types";
import { useAddress } from "../../parts/address";
import { Await, CopyButton, Dialog, Empty, Problem, SearchField } from "../../parts/basics";
import { State } from "../../parts/mark";
import { type Column, Table } from "../../parts/table";
import { Tabs } from "../../parts/tabs";
import { Ago, Exact } from "../../parts/time";
import { useTitle } from "../../shell/crumbs";

export function AdminView() {
  useTitle("Admin", [{ key: "admin", node: "Admin" }]);
  const [search] = useAddress();
  const tab = search.tab ?? "health";
  return (
    <div className="view fixed">
      <Tabs
        param="tab"
        value={tab}
        clears={["q"]}
        items={[
          ["health", "Health"],
          ["users", "Users"],
          ["tokens", "Tokens"],
          ["audit", "Audit"],
        ]}
      />
      <div className="tab-body">
        {tab === "health" ? <HealthTab /> : null}
        {tab === "users" ? <UsersTab /> : null}
        {tab === "tokens" ? <TokensTab /> : null}
        {tab === "audit" ? <AuditTab /> : null}
      </div>
    </div>
  );
}

function HealthTab() {
  const health = useApi<Health>("/health");
  const me = useApi<Me>("/me");
  return (
    <Await of={health} what="the server's health">
      {() =>
        health.data ? (
          <div className="columns">
            <section className="card">
              <header>
                <h2 className="grow">Loops</h2>
                <State
                  state={health.data.status === "ok" ? "succeeded" : "retry_wait"}
                  word={health.data.status === "ok" ? "all well" : "degraded"}
                />
              </header>
              {health.data.loops.map((loop) => (
                <div key={loop.name} className="line">
                  <State
                    state={
                      loop.status === "ok"
                        ? "succeeded"
                        : loop.status === "late"
                          ? "retry_wait"
                          : "failed"
                    }
                    word={loop.name}
                  />
                  <span className="quiet cut grow">{loop.detail}</span>
                  <Ago at={loop.last_at} />
                </div>
              ))}
            </section>
            <section className="card">
              <header>
                <h2>Server</h2>
              </header>
              <dl className="facts body">
                <dt>Version</dt>
                <dd>{health.data.version}</dd>
                <dt>Store</dt>
                <dd>
                  {health.data.store.kind}{" "}
                  <span className="quiet mono">{health.data.store.detail}</span>
                </dd>
                <dt>Started</dt>
                <dd>
                  <Exact at={health.data.started_at} />
                </dd>
                <dt>Last event</dt>
                <dd>{health.data.last_event.toLocaleString("en")}</dd>
                <dt>You are</dt>
                <dd>
                  {me.data?.name} <span className="quiet">{me.data?.role}</span>
                  {me.data?.local ? (
                    <div className="quiet small">
                      No user is set up: everyone at this machine may do everything.
                    </div>
                  ) : null}
                </dd>
                <dt>Metrics</dt>
                <dd>
                  <a href="/metrics" className="text-link">
                    /metrics
                  </a>{" "}
                  <span className="quiet">for Prometheus</span>
                </dd>
              </dl>
            </section>
          </div>
        ) : null
      }
    </Await>
  );
}

const ROLES = ["viewer", "operator", "editor", "admin"];

function UsersTab() {
  const list = useList<User>("/users", {}, 200);
  const [adding, setAdding] = useState(false);
  const remove = useAction<unknown, string>({
    run: (name, key) => request(`/users/${enc(name)}`, { method: "DELETE", idempotencyKey: key }),
    touches: ["/users"],
    done: (_, name) => `${name} may no longer sign in`,
  });
  const columns: Column<User>[] = [
    {
      key: "name",
      head: "Name",
      width: "minmax(100px, 1fr)",
      cell: (u) => <span className="strong">{u.name}</span>,
    },
    {
      key: "roles",
      head: "Roles",
      width: "minmax(100px, 1.4fr)",
      cell: (u) =>
        Object.entries(u.roles)
          .map(([namespace, role]) => `${role} of ${namespace}`)
          .join(", "),
    },
    { key: "at", head: "Since", wide: true, width: "90px", cell: (u) => <Ago at={u.created_at} /> },
    {
      key: "remove",
      head: "",
      width: "80px",
      cell: (u) => (
        <button type="button" className="button plain" onClick={() => remove.mutate(u.name)}>
          Remove
        </button>
      ),
    },
  ];
  return (
    <>
      <div className="filters">
        <span className="grow quiet">
          Roles: a viewer sees, an operator runs and reruns, an editor changes workflows, an admin
          all.
        </span>
        <button type="button" className="button" onClick={() => setAdding(true)}>
          New user…
        </button>
      </div>
      <Await of={list} what="the users">
        <div className="card fill">
          <Table
            label="Users"
            columns={columns}
            rows={list.items}
            rowKey={(u) => u.name}
            empty={
              <Empty title="No user">
                <p>
                  Without users only this machine reaches the server, and may do everything. Make
                  one to listen on another address.
                </p>
              </Empty>
            }
          />
        </div>
      </Await>
      {adding ? <UserForm onClose={() => setAdding(false)} /> : null}
    </>
  );
}

function UserForm({ onClose }: { onClose: () => void }) {
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const [role, setRole] = useState("operator");
  const save = useAction<unknown>({
    run: (_, key) =>
      request("/users", {
        method: "POST",
        body: { name: name.trim(), password, roles: { default: role } },
        idempotencyKey: key,
      }),
    quiet: true,
    touches: ["/users"],
    done: `${name.trim()} can sign in`,
    onSuccess: onClose,
  });
  return (
    <Dialog
      title="New user"
      onClose={onClose}
      onSubmit={() => save.mutate()}
      foot={
        <button
          type="submit"
          className="button primary"
          disabled={!name.trim() || !password || save.isPending}
        >
          Make the user
        </button>
      }
    >
      <div className="field">
        <label htmlFor="u-name">Name</label>
        <input
          id="u-name"
          className="input"
          autoComplete="off"
          value={name}
          onChange={(e) => setName(e.target.value)}
        />
      </div>
      <div className="field">
        <label htmlFor="u-password">Password</label>
        <input
          id="u-password"
          className="input"
          type="password"
          autoComplete="new-password"
          value={password}
          onChange={(e) => setPassword(e.target.value)}
        />
      </div>
      <div className="field">
        <label htmlFor="u-role">Role in the default namespace</label>
        <select
          id="u-role"
          className="select"
          value={role}
          onChange={(e) => setRole(e.target.value)}
        >
          {ROLES.map((word) => (
            <option key={word}>{word}</option>
          ))}
        </select>
      </div>
      {save.error ? <Problem error={save.error} /> : null}
    </Dialog>
  );
}

function TokensTab() {
  const list = useList<Token>("/tokens", {}, 200);
  const [adding, setAdding] = useState(false);
  const remove = useAction<unknown, string>({
    run: (id, key) => request(`/tokens/${enc(id)}`, { method: "DELETE", idempotencyKey: key }),
    touches: ["/tokens"],
    done: "The token no longer works",
  });
  const columns: Column<Token>[] = [
    {
      key: "name",
      head: "Name",
      width: "minmax(100px, 1fr)",
      cell: (t) => <span className="strong">{t.name}</span>,
    },
    {
      key: "role",
      head: "Role",
      width: "minmax(80px, 1fr)",
      cell: (t) => `${t.role}${t.namespace ? ` of ${t.namespace}` : ""}`,
    },
    {
      key: "expires",
      head: "Ends",
      wide: true,
      width: "90px",
      cell: (t) => (t.expires_at ? <Ago at={t.expires_at} /> : "never"),
    },
    {
      key: "remove",
      head: "",
      width: "80px",
      cell: (t) => (
        <button type="button" className="button plain" onClick={() => remove.mutate(t.id)}>
          Revoke
        </button>
      ),
    },
  ];
  return (
    <>
      <div className="filters">
        <span className="grow quiet">A token lets a program act with a role.</span>
        <button type="button" className="button" onClick={() => setAdding(true)}>
          New token…
        </button>
      </div>
      <Await of={list} what="the tokens">
        <div className="card fill">
          <Table
            label="Tokens"
            columns={columns}
            rows={list.items}
            rowKey={(t) => t.id}
            empty={
              <Empty title="No token">
                <p>
                  Make one for each program, with the least role and an end:{" "}
                  <code>kobza --token … runs start orders</code>
                </p>
              </Empty>
            }
          />
        </div>
      </Await>
      {adding ? <TokenForm onClose={() => setAdding(false)} /> : null}
    </>
  );
}

function TokenForm({ onClose }: { onClose: () => void }) {
  const [name, setName] = useState("");
  const [role, setRole] = useState("operator");
  const [days, setDays] = useState("90");
  const save = useAction<{ token: string }>({
    run: (_, key) =>
      request("/tokens", {
        method: "POST",
        body: {
          name: name.trim(),
          role,
          namespace: null,
          expires_at:
            days === "" ? null : new Date(Date.now() + Number(days) * 86_400_000).toISOString(),
        },
        idempotencyKey: key,
      }),
    quiet: true,
    touches: ["/tokens"],
  });
  return (
    <Dialog
      title="New token"
      onClose={onClose}
      onSubmit={() => save.data === undefined && save.mutate()}
      foot={
        save.data ? (
          <button type="button" className="button primary" onClick={onClose}>
            I have kept it
          </button>
        ) : (
          <button
            type="submit"
            className="button primary"
            disabled={!name.trim() || save.isPending}
          >
            Make the token
          </button>
        )
      }
    >
      {save.data ? (
        <>
          <p>Keep it now: it is shown this once, and only its hash stays here.</p>
          <pre className="sample wrap-text">{save.data.token}</pre>
          <CopyButton text={save.data.token} label="Copy" />
        </>
      ) : (
        <>
          <div className="field">
            <label htmlFor="t-name">Name</label>
            <input
              id="t-name"
              className="input"
              placeholder="Which program uses it"
              value={name}
              onChange={(e) => setName(e.target.value)}
            />
          </div>
          <div className="field">
            <label htmlFor="t-role">Role</label>
            <select
              id="t-role"
              className="select"
              value={role}
              onChange={(e) => setRole(e.target.value)}
            >
              {ROLES.map((word) => (
                <option key={word}>{word}</option>
              ))}
            </select>
          </div>
          <div className="field">
            <label htmlFor="t-days">Ends after</label>
            <select
              id="t-days"
              className="select"
              value={days}
              onChange={(e) => setDays(e.target.value)}
            >
              <option value="7">7 days</option>
              <option value="30">30 days</option>
              <option value="90">90 days</option>
              <option value="365">a year</option>
              <option value="">never</option>
            </select>
          </div>
        </>
      )}
      {save.error ? <Problem error={save.error} /> : null}
    </Dialog>
  );
}

function AuditTab() {
  const [search, set] = useAddress();
  const list = useList<AuditEntry>("/audit", { q: search.q }, 100);
  const columns: Column<AuditEntry>[] = [
    { key: "at", head: "When", width: "88px", cell: (a) => <Ago at={a.at} /> },
    {
      key: "who",
      head: "Who",
      width: "minmax(70px, 0.5fr)",
      cell: (a) => <span className="strong">{a.principal}</span>,
    },
    {
      key: "what",
      head: "What",
      width: "minmax(90px, 0.7fr)",
      cell: (a) => <span className="mono">{a.action}</span>,
    },
    {
      key: "target",
      head: "On",
      width: "minmax(0, 1.4fr)",
      cell: (a) => <span title={a.target}>{a.target}</span>,
    },
    {
      key: "result",
      head: "Result",
      wide: true,
      width: "90px",
      cell: (a) => <State state={a.result === "ok" ? "succeeded" : "failed"} word={a.result} />,
    },
  ];
  return (
    <>
      <div className="filters">
        <SearchField
          label="Who, what, on what"
          value={search.q ?? ""}
          onChange={(q) => set({ q })}
        />
      </div>
      <Await of={list} what="the audit log">
        <div className="card fill">
          <Table
            label="Audit log"
            columns={columns}
            rows={list.items}
            rowKey={(a) => String(a.seq)}
            rowHeight={30}
            more={list}
            empty={
              <Empty title="Nothing was changed yet">
                <p>Every write is kept here: who, what, on what, and whether it was allowed.</p>
              </Empty>
            }
          />
        </div>
      </Await>
    </>
  );
}
