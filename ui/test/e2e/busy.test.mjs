// The pages over a busy store: long lists, long logs, many partitions, names that nobody has.
//   KOBZA=path/to/kobza node --test test/e2e/busy.test.mjs

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before } from "node:test";
import { SMALL, TRICKY, write } from "../busy/definitions.mjs";
import { fill } from "../busy/store.mjs";
import { settled } from "./axe.mjs";
import { launch } from "./browser.mjs";
import { inPages } from "./pages.mjs";
import { client, ended, freePort, missing, start, stop } from "./server.mjs";

let browser;
let folder;
let server;
let url;
let made;

before(async () => {
  if (missing) return;
  folder = await mkdtemp(join(tmpdir(), "kobza-busy-"));
  const dailies = await write(folder, SMALL);
  const port = await freePort();
  url = `http://127.0.0.1:${port}`;
  server = await start(folder, port, "ignore");
  made = await fill(url, SMALL, dailies);
  browser = await launch();
});
after(async () => {
  if (missing) return;
  await browser?.close();
  // A task lives on without its server: what still runs is ended first.
  const api = client(url);
  for (const run of (await api("/runs?state=running,queued,paused&limit=100")).items) {
    await api(`/runs/${run.id}/cancel`, {});
    await ended(api, run.id);
  }
  await stop(server);
  await rm(folder, { recursive: true, force: true });
});

const inPage = inPages(() => browser, "busy");

inPage("parameters survive a reload of the form", {}, async (page) => {
  await page.goto(`${url}/workflows/${made.daily}?start=1`);
  await page.getByRole("dialog").getByLabel("batch_size").fill("777");
  await page.reload();
  assert.equal(await page.getByRole("dialog").getByLabel("batch_size").inputValue(), "777");
});

inPage("too large a backfill is refused with its count", {}, async (page) => {
  await page.goto(`${url}/backfills?new=1&workflow=${made.daily}`);
  const form = page.getByRole("dialog");
  await form.getByLabel("First day").fill("1600-01-01");
  await form.getByLabel("Last day").fill("2026-03-14");
  await form
    .getByText(/more than|too many|at most/)
    .first()
    .waitFor();
});

inPage("deep links keep filters, tabs, panels; Back closes the panel", {}, async (page) => {
  await page.goto(`${url}/runs?state=failed,running&sort=-duration`);
  await settled(page);
  const pressed = page.locator(".filters [aria-pressed=true]");
  assert.equal(await pressed.count(), 2);
  const states = await page.locator("[role=row] .state").allInnerTexts();
  assert.ok(states.length > 3 && states.every((s) => /Failed|Running/.test(s)), states.join());
  await page.getByRole("button", { name: "Running" }).click();
  await page.waitForURL((u) => u.searchParams.get("state") === "failed");
  await page.goto(`${url}/runs/${made.failed}?tab=tasks&state=failed`);
  await page.locator(".tr .link-button").first().click();
  await page.getByRole("complementary").waitFor();
  assert.match(page.url(), /tab=tasks&state=failed&task=/);
  await page.goBack();
  await page.getByRole("complementary").waitFor({ state: "detached" });
  assert.match(page.url(), /tab=tasks&state=failed$/);
});

inPage("drag over the grid chooses cells for one action", {}, async (page) => {
  await page.goto(`${url}/workflows/${made.daily}`);
  const cells = page.locator(".grid-canvas");
  await cells.waitFor();
  const grid = await page.locator(".grid-scroll").boundingBox();
  await page.mouse.move(grid.x + 240, grid.y + 58 + 20);
  await page.mouse.down();
  await page.mouse.move(grid.x + 300, grid.y + 58 + 60, { steps: 5 });
  await page.mouse.up();
  await page.getByText(/\d+ cells chosen/).waitFor();
  await page.getByRole("button", { name: /^Mark \d+…/ }).click();
  await page
    .getByRole("dialog")
    .getByRole("button", { name: /Mark \d+ tasks succeeded/ })
    .waitFor();
});

inPage("a long log: link to a line, search with counts, levels", {}, async (page) => {
  const line = Math.round(SMALL.lines * 0.777);
  await page.goto(`${url}/tasks/${made.log}#L${line}`);
  await page.getByText("needle: checksum differs").waitFor();
  assert.equal(await page.locator(".log-line.target .log-number").innerText(), String(line));
  await page.getByLabel("Search in the log").fill("duplicate key");
  await page.keyboard.press("Enter");
  await page.getByText(/^\d+ of \d+/).waitFor();
  await page.locator(".log-line.target mark").first().waitFor();
  await page.getByLabel("Level").selectOption("error");
  await page.getByText(/of 200,?000 lines|of 200k lines/i).waitFor();
  await page.waitForFunction(() => {
    const lines = [...document.querySelectorAll(".log-line")];
    return lines.length > 5 && lines.every((line) => line.classList.contains("level-error"));
  });
  // Markup in a log is text.
  await page.getByText("<b>not markup</b> &amp; not an entity").first().waitFor();
});

inPage("following a live log stops when it is scrolled, and says so", {}, async (page) => {
  await page.goto(`${url}/tasks/${made.liveTask}`);
  await page.getByText("following").waitFor();
  const total = () => page.locator(".log-foot span").first().innerText();
  const first = await total();
  await page.waitForFunction(
    (text) => document.querySelector(".log-foot span")?.textContent !== text,
    first,
  );
  // There is something to scroll.
  await page.waitForFunction(() => {
    const lines = document.querySelector(".log-lines");
    return lines && lines.scrollHeight > lines.clientHeight + 40;
  });
  await page.locator(".log-lines").evaluate((e) => {
    e.scrollTop = 0;
  });
  await page.getByText("Follow: stopped while you read").click();
  await page.getByText("following").waitFor();
});

inPage("names with markup, emoji, right-to-left text and 500 characters", {}, async (page) => {
  for (const name of TRICKY) {
    await page.goto(`${url}/workflows/${encodeURIComponent(name)}`);
    await page.getByRole("heading", { name }).waitFor();
    await page.getByRole("link", { name: "Runs", exact: true }).last().click();
    await page.getByText("Nothing has run yet").waitFor();
  }
});

inPage("the time zone is one for the page, and named", {}, async (page) => {
  await page.goto(`${url}/runs/${made.failed}`);
  const started = page.locator(".page-head time").first();
  assert.match(await started.innerText(), /GMT\+2/);
  await page.getByRole("button", { name: /Times are in/ }).click();
  await page.getByRole("button", { name: /^UTC/ }).last().click();
  assert.match(await started.innerText(), /UTC$/);
  await page.reload();
  await started.waitFor();
  assert.match(await started.innerText(), /UTC$/);
});

inPage("100,000 partitions are a strip, two dimensions a matrix", {}, async (page) => {
  await page.goto(`${url}/asset/events/hourly`);
  await page.locator(".strip span").first().waitFor();
  const table = page.getByRole("table", { name: "Partitions" });
  await page.getByRole("button", { name: /^Present/ }).click();
  await page.waitForURL(/state=present/);
  await table
    .getByRole("row", { name: /Present/ })
    .first()
    .waitFor();
  await page.getByRole("button", { name: /^Present/ }).click();
  await page.getByLabel("From partition").fill("2020-02-03T04");
  await table.getByRole("row", { name: /2020-02-03T04:00/ }).waitFor();
  await page.goto(`${url}/asset/sales/by_region`);
  await page.locator(".matrix canvas").waitFor();
  await page.getByRole("button", { name: "Older" }).click();
  await page.waitForURL(/offset=/);
});

inPage("all results of an asset's checks are told", {}, async (page) => {
  await page.goto(`${url}/asset/sales/by_region?tab=checks`);
  const results = page.getByRole("table", { name: "Results of checks" });
  await results
    .getByRole("row", { name: /not empty holds/ })
    .nth(1)
    .waitFor();
  await page.getByRole("button", { name: "not empty" }).click();
  await page.waitForURL(/check=not/);
  await page.getByRole("heading", { name: "Results of not empty" }).waitFor();
  await results
    .getByRole("row", { name: /not empty holds/ })
    .nth(1)
    .waitFor();
});

inPage("a backfill of partitions is previewed", {}, async (page) => {
  await page.goto(`${url}/backfills?new=1&workflow=sales_by_region`);
  const form = page.getByRole("dialog");
  await form.getByLabel("Partitions").fill("2026-02-01..2026-02-03|eu,us");
  await form.getByText(/^6 partitions/).waitFor();
  await form.getByLabel("Partitions").fill("2026-02-01|nowhere");
  await form.getByText(/nowhere.*does not exist/).waitFor();
});

inPage("who holds a limit and who waits", {}, async (page) => {
  await page.goto(`${url}/limits?limit=licence`);
  const panel = page.getByRole("complementary");
  await panel.getByRole("link", { name: /seat/ }).first().waitFor();
  await panel.getByText(/10/).first().waitFor();
});

inPage("workflows of another system are filtered, and speak its words", {}, async (page) => {
  await page.goto(`${url}/workflows`);
  await page.locator(".filters").getByRole("button", { name: /^argo/ }).click();
  await page.waitForURL(/dialect=argo/);
  await page.getByRole("row", { name: /hello-argo/ }).waitFor();
  await page.getByRole("row", { name: /dbt_all_models/ }).waitFor({ state: "detached" });
  await page.getByRole("link", { name: "hello-argo" }).click();
  await page.getByRole("button", { name: "Submit…" }).waitFor();
  await page.getByRole("link", { name: "Workflows", exact: true }).nth(1).waitFor();
});

inPage("a new version is told of, with what it changed", {}, async (page) => {
  const api = client(url);
  const { source } = await api(`/workflows/${made.daily}`);
  const changed = { ...JSON.parse(source), description: "twice as careful" };
  await api("/workflows", changed);
  const { id } = await api(`/workflows/${made.daily}/runs`, { params: {} });
  await ended(api, id);
  await page.goto(`${url}/workflows/${made.daily}?tab=code`);
  await page.getByText("twice as careful").first().waitFor();
  await page.getByRole("button", { name: "Changes" }).first().click();
  await page.waitForURL(/against=/);
  await page.locator(".cm-deletedChunk, .cm-changedLine").first().waitFor();
});

inPage("from home to a running run and its tasks without a mouse", {}, async (page) => {
  await page.goto(url);
  await settled(page);
  await page.keyboard.press("g");
  await page.keyboard.press("w");
  await page.waitForURL(/\/workflows/);
  await page.locator("[data-filter]").waitFor();
  await page.keyboard.press("/");
  await page.keyboard.type("release");
  await page.waitForURL(/q=release/);
  await page.keyboard.press("Control+k");
  await page.locator("[cmdk-input]").waitFor();
  await page.keyboard.type("release_mo");
  await page
    .getByRole("option", { name: /release_model/ })
    .first()
    .waitFor();
  await page.keyboard.press("Enter");
  await page.waitForURL(/workflows\/release_model/);
  await page.getByRole("heading", { name: "release_model" }).waitFor();
  await page.keyboard.press("r");
  await page.getByRole("dialog").waitFor();
  await page.getByLabel("Note").focus();
  await page.keyboard.type("by hand");
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/runs\//);
  await page.locator(".node", { hasText: "approve" }).waitFor();
  await page.keyboard.press("3");
  await page.waitForURL(/tab=tasks/);
  await page.getByRole("row", { name: /approve/ }).waitFor();
  await page.keyboard.press("?");
  await page.getByRole("dialog").getByText("Search and commands").waitFor();
  await page.keyboard.press("Escape");
  await page.keyboard.press("Shift+C");
  await page.getByRole("dialog").getByText("What changes").waitFor();
  await page.keyboard.press("Escape");
});

inPage("what a task runs is shown with its values", {}, async (page) => {
  await page.goto(`${url}/tasks/${made.log}?tab=detail`);
  await page.getByText("What is run").waitFor();
  await page.locator(".cm-content", { hasText: "needle: checksum differs" }).waitFor();
});
