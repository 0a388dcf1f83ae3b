// Pictures of every view, light, dark and narrow, for a person to look at.
//   node test/e2e/shots.mjs DIR [name ...]

import { mkdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { bigRun, runs } from "../mock/data.mjs";
import { serve } from "../mock/server.mjs";
import { launch, openPage } from "./browser.mjs";

const [dir = "/tmp/shots", ...only] = process.argv.slice(2);
await mkdir(dir, { recursive: true });
const { server, url } = await serve({
  dist: fileURLToPath(new URL("../../dist", import.meta.url)),
});
const etl = runs.find((r) => r.workflow.index === 0 && r.state === "running");
const failed = runs.find((r) => r.workflow.index === 0 && r.state === "failed");
const views = {
  home: "/",
  workflows: "/workflows",
  grid: "/workflows/nightly_orders",
  "wf-graph": "/workflows/nightly_orders?tab=graph",
  calendar: "/workflows/nightly_orders?tab=calendar",
  durations: "/workflows/nightly_orders?tab=durations",
  code: "/workflows/broken_report?tab=code",
  diff: "/workflows/nightly_orders?tab=code",
  start: "/workflows/nightly_orders?start=1",
  runs: "/runs",
  run: `/runs/${failed.id}`,
  "run-live": `/runs/${etl.id}`,
  timeline: `/runs/${failed.id}?tab=timeline`,
  tasks: `/runs/${failed.id}?tab=tasks`,
  details: `/runs/${failed.id}?tab=details`,
  big: `/runs/${bigRun.id}`,
  "big-node": `/runs/${bigRun.id}?node=convert`,
  huge: "/workflows/dbt_all_models?tab=graph",
  panel: `/runs/${failed.id}?task=${failed.id}.9`,
  task: `/tasks/${failed.id}.1`,
  log: `/tasks/${bigRun.id}.1#L777777`,
  why: `/tasks/${failed.id}.9?tab=why`,
  values: `/tasks/${failed.id}.1?tab=values`,
  definition: `/tasks/${failed.id}.6?tab=detail`,
  artifacts: `/tasks/${bigRun.id}.1?tab=artifacts`,
  assets: "/assets",
  lineage: "/assets?show=lineage",
  partitions: "/asset/events/hourly",
  matrix: "/asset/sales/by_region",
  checks: "/asset/sales/by_region?tab=checks",
  backfills: "/backfills?backfill=bf1",
  "backfill-new": "/backfills?new=1&workflow=nightly_orders",
  triggers: "/triggers?trigger=tr-0",
  limits: "/limits?limit=warehouse",
  events: "/events",
  connections: "/connections",
  variables: "/variables",
  admin: "/admin",
  audit: "/admin?tab=audit",
  compare: `/compare?runs=${runs
    .filter((r) => r.workflow.index === 0)
    .slice(4, 7)
    .map((r) => r.id)
    .join(",")}`,
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
    await page.waitForTimeout(350);
    await page.screenshot({ path: `${dir}/${name}-${mode}.png` });
    const wide = await page.evaluate(
      () => document.documentElement.scrollWidth > window.innerWidth,
    );
    if (wide) problems.push("scrolls sideways");
    if (problems.length > 0) console.log(`${mode} ${name}:`, problems.splice(0).join("\n   "));
  }
}
await browser.close();
server.close();
server.closeAllConnections();
