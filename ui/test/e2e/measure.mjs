// How fast the pages are with a busy store of a real server: 50 workflows, 10,000 runs, a run of
// 100,000 tasks, a graph of 2,000 nodes, 100,000 partitions, a log of 1,000,000 lines. Prints a
// table; exits with 1 when a budget is broken.
//   KOBZA=target/release/kobza node test/busy/main.mjs FOLDER    (makes the store once)
//   KOBZA=target/release/kobza node test/e2e/measure.mjs FOLDER

import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { gzipSync } from "node:zlib";
import { launch, openPage } from "./browser.mjs";
import { freePort, start, stop } from "./server.mjs";

const folder = resolve(process.argv[2] ?? "busy");
const made = JSON.parse(await readFile(join(folder, "places.json"), "utf8"));
const port = await freePort();
const url = `http://127.0.0.1:${port}`;
const server = await start(folder, port, "ignore");
const browser = await launch();
const rows = [];
const row = (what, value, unit, budget) =>
  rows.push({ what, value: Math.round(value * 10) / 10, unit, budget });

// Bytes of scripts before the first view is there.
{
  const { page, context } = await openPage(browser);
  let script = 0;
  const pending = [];
  page.on("response", (response) => {
    if (/\.js$/.test(response.url())) {
      pending.push(
        response.body().then((body) => {
          script += gzipSync(body, { level: 9 }).length;
        }),
      );
    }
  });
  await page.goto(url);
  await page.waitForSelector(".figures");
  await Promise.all(pending);
  row("scripts before the first view, compressed", script / 1000, "kB", 350);
  const paint = await page.evaluate(
    () => performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? -1,
  );
  row("home: first paint", paint, "ms", 1000);
  await context.close();
}

/** Time from the click of a link (here: the router's own navigation) to what is looked for. */
async function open(name, path, selector, budget = 1000) {
  const { page, context } = await openPage(browser);
  // Code is loaded once; the store's answers are not.
  await page.goto(url + path);
  await page.waitForSelector(selector);
  await page.goto(`${url}/events`);
  await page.waitForSelector(".tr.virtual");
  const took = await page.evaluate(
    ([to, wanted]) =>
      new Promise((resolve) => {
        const began = performance.now();
        const look = () => {
          if (document.querySelector(wanted))
            requestAnimationFrame(() => resolve(performance.now() - began));
          else requestAnimationFrame(look);
        };
        history.pushState({}, "", to);
        window.dispatchEvent(new PopStateEvent("popstate"));
        look();
      }),
    [path, selector],
  );
  row(`${name}: open`, took, "ms", budget);
  return { page, context };
}

/** Frames while something is scrolled: the share of those longer than 33 ms, and the worst. */
async function smooth(page, selector, name, step) {
  const frames = await page.evaluate(
    ([wanted, by]) =>
      new Promise((resolve) => {
        const element = document.querySelector(wanted);
        const times = [];
        let last = performance.now();
        let n = 0;
        const frame = (now) => {
          times.push(now - last);
          last = now;
          if (by.x) element.scrollLeft += by.x * (n % 40 < 20 ? -1 : 1);
          if (by.y) element.scrollTop += by.y;
          n += 1;
          if (n < 120) requestAnimationFrame(frame);
          else resolve(times.slice(2));
        };
        requestAnimationFrame(frame);
      }),
    [selector, step],
  );
  frames.sort((a, b) => a - b);
  row(`${name}: median frame while scrolling`, frames[frames.length >> 1], "ms", 20);
  row(`${name}: 95 of 100 frames`, frames[Math.floor(frames.length * 0.95)], "ms", 60);
}

async function memory(page, name) {
  const session = await page.context().newCDPSession(page);
  await session.send("HeapProfiler.collectGarbage");
  const { usedSize } = await session.send("Runtime.getHeapUsage");
  row(`${name}: script memory`, usedSize / 1e6, "MB", 150);
}

{
  const { page, context } = await open(
    "workflow of 2,000 nodes, graph",
    "/workflows/dbt_all_models?tab=graph",
    ".graph .node",
    1000,
  );
  await memory(page, "workflow of 2,000 nodes");
  await context.close();
}
{
  const { page, context } = await open("grid", `/workflows/${made.daily}`, ".grid-canvas");
  await page.waitForTimeout(300);
  await smooth(page, ".grid-scroll", "grid", { x: 30 });
  await context.close();
}
{
  const { page, context } = await open(
    "grid of 2,000 rows, 120,000 cells",
    "/workflows/dbt_all_models",
    ".grid-canvas",
  );
  await page.waitForTimeout(300);
  await smooth(page, ".grid-scroll", "grid of 2,000 rows", { y: 60 });
  await context.close();
}
{
  const { context } = await open(
    "run of 100,000 tasks, graph",
    `/runs/${made.big}`,
    ".graph .node",
  );
  await context.close();
}
{
  const { page, context } = await open(
    "run of 100,000 tasks, table",
    `/runs/${made.big}?tab=tasks`,
    "[aria-label=Tasks] .tr.virtual",
  );
  await smooth(page, ".table-scroll:has([aria-label=Tasks])", "run of 100,000 tasks, table", {
    y: 90,
  });
  await memory(page, "run of 100,000 tasks");
  await context.close();
}
{
  const { page, context } = await open(
    "run of 100,000 tasks, timeline",
    `/runs/${made.big}?tab=timeline`,
    ".timeline-name",
  );
  await smooth(page, ".timeline", "timeline", { y: 60 });
  await context.close();
}
{
  const { page, context } = await open(
    "log of 1,000,000 lines",
    `/tasks/${made.log}#L777000`,
    ".log-line.target",
  );
  await smooth(page, ".log-lines", "log", { y: 120 });
  await memory(page, "log of 1,000,000 lines");
  await context.close();
}
{
  const { context } = await open("100,000 partitions", "/asset/events/hourly", ".strip");
  await context.close();
}
{
  const { page, context } = await open("10,000 runs", "/runs", "[aria-label=Runs] .tr.virtual");
  await smooth(page, ".table-scroll", "10,000 runs", { y: 120 });
  await context.close();
}

await browser.close();
await stop(server);

let broken = 0;
for (const { what, value, unit, budget } of rows) {
  const over = value > budget;
  if (over) broken += 1;
  console.log(
    `${over ? "✕" : " "} ${what.padEnd(52)} ${String(value).padStart(8)} ${unit.padEnd(3)} (at most ${budget})`,
  );
}
process.exit(broken > 0 ? 1 : 0);
