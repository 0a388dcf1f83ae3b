import { useState } from "react";
import { request } from "../api/client";
import { queryClient, useAction } from "../api/hooks";
import { Problem } from "../parts/basics";

export function SignIn({ onDone }: { onDone: () => void }) {
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const action = useAction<void>({
    run: () => request("/session", { method: "POST", body: { name, password } }),
    quiet: true,
    onSuccess: () => {
      void queryClient.invalidateQueries();
      onDone();
    },
  });
  return (
    <main className="sign-in">
      <form
        className="card"
        onSubmit={(event) => {
          event.preventDefault();
          action.mutate();
        }}
      >
        <div className="body stack">
          <h1 className="row">
            <img src="/favicon.svg" alt="" width={22} height={22} /> Sign in to Kobza
          </h1>
          <div className="field">
            <label htmlFor="name">Name</label>
            <input
              id="name"
              className="input"
              autoComplete="username"
              required
              value={name}
              onChange={(event) => setName(event.target.value)}
            />
          </div>
          <div className="field">
            <label htmlFor="password">Password</label>
            <input
              id="password"
              type="password"
              className="input"
              autoComplete="current-password"
              required
              value={password}
              onChange={(event) => setPassword(event.target.value)}
            />
          </div>
          {action.error ? <Problem error={action.error} /> : null}
          <button type="submit" className="button primary" disabled={action.isPending}>
            {action.isPending ? "Signing in…" : "Sign in"}
          </button>
          <p className="quiet small">
            No user yet? On the server's machine: <code>kobza users add NAME</code>
          </p>
        </div>
      </form>
    </main>
  );
}
