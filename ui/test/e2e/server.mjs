// A real server of its own for tests and measurements.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { createServer } from "node:net";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

// The server's folder is not ours: a relative path means one from here.
export const kobza = resolve(
  process.env.KOBZA ?? fileURLToPath(new URL("../../../target/debug/kobza", import.meta.url)),
);
export const missing = existsSync(kobza)
  ? false
  : `there is no ${kobza}: build it, or name it in KOBZA`;

export function freePort() {
  return new Promise((resolve) => {
    const probe = createServer().listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

/** Starts it over `folder`: `data` holds the store, `workflows` the definitions. */
export async function start(folder, port, stdio = ["ignore", "inherit", "inherit"]) {
  const child = spawn(
    kobza,
    [
      "server",
      "--listen",
      `127.0.0.1:${port}`,
      "--data",
      join(folder, "data"),
      "--workflows",
      join(folder, "workflows"),
    ],
    { cwd: folder, stdio },
  );
  for (;;) {
    const answer = await fetch(`http://127.0.0.1:${port}/api/v1/health`).catch(() => null);
    if (answer?.ok) return child;
    if (child.exitCode !== null) throw new Error(`the server ended with ${child.exitCode}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export async function stop(child) {
  child.kill("SIGTERM");
  await new Promise((resolve) =>
    child.exitCode === null ? child.once("exit", resolve) : resolve(),
  );
}

/** Asks the API of the server at `url`; an error is thrown with what it said. */
export const client = (url) => async (path, body, method) => {
  const answer = await fetch(`${url}/api/v1${path}`, {
    method: method ?? (body === undefined ? "GET" : "POST"),
    headers: { "content-type": "application/json", "x-kobza-csrf": "1" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
  return answer.status === 204 ? null : answer.json();
};

const FINISHED = ["succeeded", "failed", "cancelled"];

export async function ended(api, run, every = 100) {
  for (;;) {
    const now = await api(`/runs/${run}`);
    if (FINISHED.includes(now.state)) return now;
    await new Promise((resolve) => setTimeout(resolve, every));
  }
}
