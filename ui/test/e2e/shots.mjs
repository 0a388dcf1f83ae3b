// Pictures of every view, light, dark and narrow, for a person to look at.
//   node test/busy/main.mjs FOLDER [small]       (makes the store once)
//   node test/e2e/shots.mjs FOLDER PICTURES [name ...]

import { mkdir, readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { still } from "./axe.mjs";
import { launch, openPage } from "./browser.mjs";
import { client, freePort, start, stop } from "./server.mjs";

const [given = "busy", dir = "/tmp/shots", ...only] = process.argv.slice(2);
const folder = resolve(given);
await mkdir(dir, { recursive: true });
const made = JSON.parse(await readFile(join(folder, "places.json"), "utf8"));
const port = await freePort();
const url = `http://127.0.0.1:${port}`;
const server = await start(folder, port, "ignore");
const api = client(url);
const tasks = (await api(`/runs/${made.failed}/tasks?limit=100`)).items;
const failed = tasks.find((t) => t.state === "failed") ?? tasks[0];
const pending = (await api("/limits/licence/waiters")).items[0];
const backfill = (await api("/backfills?limit=1")).items[0];
const trigger = (await api("/triggers?limit=1")).items[0];
const daily = (await api(`/runs?workflow=${made.daily}&limit=3`)).items;
const approval = (await api("/summary")).waiting[0];
const views = {
  home: "/",
  workflows: "/workflows",
  grid: `/workflows/${made.daily}`,
  "grid-wide": "/workflows/dbt_all_models",
  "wf-graph": `/workflows/${made.daily}?tab=graph`,
  "wf-runs": `/workflows/${made.daily}?tab=runs`,
  "wf-triggers": `/workflows/${made.daily}?tab=triggers`,
  "wf-assets": `/workflows/${made.daily}?tab=assets`,
  calendar: `/workflows/${made.daily}?tab=calendar`,
  durations: `/workflows/${made.daily}?tab=durations`,
  code: `/workflows/${made.daily}?tab=code`,
  broken: "/workflows/quarterly_report?tab=code",
  start: `/workflows/${made.daily}?start=1`,
  runs: "/runs",
  run: `/runs/${made.failed}`,
  "run-live": `/runs/${made.live}`,
  timeline: `/runs/${made.failed}?tab=timeline`,
  tasks: `/runs/${made.failed}?tab=tasks`,
  "run-events": `/runs/${made.failed}?tab=events`,
  details: `/runs/${made.failed}?tab=details`,
  big: `/runs/${made.big}`,
  "big-node": `/runs/${made.big}?node=resize`,
  "big-tasks": `/runs/${made.big}?tab=tasks`,
  huge: "/workflows/dbt_all_models?tab=graph",
  panel: `/runs/${made.failed}?task=${failed.id}`,
  task: `/tasks/${failed.id}`,
  log: `/tasks/${made.log}`,
  why: `/tasks/${pending?.id}?tab=why`,
  approval: `/tasks/${approval?.id}`,
  values: `/tasks/${failed.id}?tab=values`,
  definition: `/tasks/${failed.id}?tab=detail`,
  assets: "/assets",
  lineage: "/assets?show=lineage",
  partitions: "/asset/events/hourly",
  matrix: "/asset/sales/by_region",
  checks: "/asset/sales/by_region?tab=checks",
  "asset-history": "/asset/sales/by_region?tab=history",
  backfills: `/backfills?backfill=${backfill.id}`,
  "backfill-list": "/backfills",
  "backfill-new": "/backfills?new=1&workflow=sales_by_region",
  triggers: "/triggers",
  trigger: `/triggers?trigger=${encodeURIComponent(trigger.id)}`,
  limits: "/limits?limit=licence",
  events: "/events",
  connections: "/connections",
  variables: "/variables",
  admin: "/admin",
  audit: "/admin?tab=audit",
  compare: `/compare?runs=${daily.map((r) => r.id).join(",")}`,
};
const browser = await launch();
for (const [mode, options] of [
  ["light", {}],
  ["dark", { dark: true }],
  ["narrow", { width: 360, height: 740 }],
]) {
  if (process.env.MODE && !process.env.MODE.split(",").includes(mode)) continue;
  const { page, problems } = await openPage(browser, options);
  for (const [name, path] of Object.entries(views)) {
    if (only.length > 0 && !only.includes(name)) continue;
    await page.goto(url + path, { waitUntil: "domcontentloaded" });
    await page
      .waitForSelector(".loading, .card, .graph, .log, .grid-view, .empty", { timeout: 10_000 })
      .catch(() => {});
    await page
      .waitForFunction(() => !document.querySelector(".loading"), null, { timeout: 15_000 })
      .catch(() => problems.push("still loading"));
    await still(page);
    await page.screenshot({ path: `${dir}/${name}-${mode}.png` });
    const wide = await page.evaluate(
      () => document.documentElement.scrollWidth > window.innerWidth,
    );
    if (wide) problems.push("scrolls sideways");
    if (problems.length > 0) console.log(`${mode} ${name}:`, problems.splice(0).join("\n   "));
  }
}
await browser.close();
await stop(server);
