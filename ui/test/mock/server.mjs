// The API's contract over the busy store, for the tests of the pages. Writes change what is read
// afterwards and send events, so that live views can be tested.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { missing, Refused } from "./answer.mjs";
import * as d from "./data.mjs";
import { routes } from "./route.mjs";
import { findTask } from "./views.mjs";
import { events, followers, seq } from "./world.mjs";
import "./routes-runs.mjs";
import "./routes-more.mjs";

const json = (res, status, body) => {
  const text = JSON.stringify(body);
  res.writeHead(status, { "content-type": "application/json" });
  res.end(text);
};

const idempotent = new Map();

function stream(req, res, q) {
  res.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" });
  const frame = (event, data, id) =>
    res.write(
      `event: ${event}\n${id === undefined ? "" : `id: ${id}\n`}data: ${JSON.stringify(data)}\n\n`,
    );
  frame("hello", { seq, version: "0.1.0" });
  let waiting = [];
  const after = Number(req.headers["last-event-id"] ?? q.get("after")) || seq;
  waiting = events
    .filter((e) => e.seq > after && (e.kind !== "task" || e.run === q.get("run")))
    .reverse();
  const follower = { run: q.get("run"), send: (event) => waiting.push(event) };
  followers.add(follower);
  const timer = setInterval(() => {
    if (waiting.length === 0) return;
    if (waiting.length > 500)
      frame("skipped", {
        from: waiting[0].seq,
        to: waiting.at(-1).seq,
        runs: [...new Set(waiting.map((e) => e.run))],
      });
    else frame("events", waiting, waiting.at(-1).seq);
    waiting = [];
  }, 100);
  req.on("close", () => {
    clearInterval(timer);
    followers.delete(follower);
  });
}

function logStream(req, res, id, q) {
  res.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" });
  let n = Number(req.headers["last-event-id"] ?? q.get("from")) || 1;
  const timer = setInterval(() => {
    const task = findTask(id);
    if (task.view.ended_at !== null) {
      res.write(
        `event: end\ndata: ${JSON.stringify({ total: n - 1, state: task.view.state })}\n\n`,
      );
      clearInterval(timer);
      return;
    }
    const lines = [d.logLine(n, false), d.logLine(n + 1, false)];
    n += 2;
    res.write(`event: lines\nid: ${n}\ndata: ${JSON.stringify({ lines, total: n - 1 })}\n\n`);
  }, 200);
  req.on("close", () => clearInterval(timer));
}

const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
  ".woff2": "font/woff2",
};
export const CSP =
  "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data: blob:; connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

async function files(res, dist, path) {
  const file = path.startsWith("/static/") || path === "/favicon.svg" ? path : "/index.html";
  try {
    const body = await readFile(join(dist, normalize(file)));
    res.writeHead(200, {
      "content-type": TYPES[extname(file)] ?? "application/octet-stream",
      "x-content-type-options": "nosniff",
      ...(file === "/index.html"
        ? {
            "content-security-policy": CSP,
            "cache-control": "no-cache",
            "referrer-policy": "same-origin",
          }
        : { "cache-control": "public, max-age=31536000, immutable" }),
    });
    res.end(body);
  } catch {
    res.writeHead(404);
    res.end("not found");
  }
}

const content = (id) =>
  id === "art-4"
    ? [
        "text/html",
        "<h1>Summary</h1><p>84,112 orders</p><script>parent.document.title='owned'</script>",
      ]
    : id === "art-3"
      ? [
          "image/svg+xml",
          '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 200 200" width="320"><rect width="200" height="200" fill="#eef"/><rect x="10" y="10" width="85" height="85" fill="#235"/><rect x="105" y="105" width="85" height="85" fill="#346"/><script>alert(1)</script></svg>',
        ]
      : ["application/octet-stream", "bytes"];

/** Serves the contract and the built pages; answers the server and its address. */
export function serve({ port = 0, dist }) {
  const server = createServer(async (req, res) => {
    const url = new URL(req.url, "http://localhost");
    const q = url.searchParams;
    if (!url.pathname.startsWith("/api/")) return files(res, dist, url.pathname);
    const path = url.pathname.replace("/api/v1", "");
    try {
      if (path === "/events/stream") return stream(req, res, q);
      const live = /^\/tasks\/([^/]+)\/attempts\/\d+\/log\/stream$/.exec(path);
      if (live) return logStream(req, res, live[1], q);
      const bytes = /^\/artifacts\/([^/]+)\/content$/.exec(path);
      if (bytes) {
        const [type, text] = content(bytes[1]);
        res.writeHead(200, {
          "content-type": type,
          "content-security-policy":
            "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'",
          "x-content-type-options": "nosniff",
        });
        return res.end(text);
      }
      let body = {};
      if (req.method !== "GET") {
        if (!req.headers["x-kobza-csrf"])
          throw new Refused(403, "csrf", "the request does not come from the pages");
        let text = "";
        for await (const chunk of req) text += chunk;
        body = text ? JSON.parse(text) : {};
      }
      const key = req.headers["idempotency-key"];
      if (key && idempotent.has(key)) return json(res, ...idempotent.get(key));
      for (const route of routes) {
        const match = route.method === req.method ? route.regex.exec(path) : null;
        if (!match) continue;
        const params = Object.fromEntries(
          route.names.map((name, i) => [name, decodeURIComponent(match[i + 1])]),
        );
        const result = route.handler({ ...params, q, body });
        const answer = Array.isArray(result) ? result : [200, result];
        if (key) idempotent.set(key, answer);
        if (answer[0] === 204) {
          res.writeHead(204);
          return res.end();
        }
        return json(res, answer[0], answer[1]);
      }
      throw missing("that route");
    } catch (error) {
      if (!(error instanceof Refused)) console.error(error);
      const { status = 500, code = "internal", hint = null, fields = [] } = error;
      json(res, status, { error: { code, message: error.message, hint, fields } });
    }
  });
  return new Promise((resolve) => {
    server.listen(port, "127.0.0.1", () =>
      resolve({ server, url: `http://127.0.0.1:${server.address().port}` }),
    );
  });
}
