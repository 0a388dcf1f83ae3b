// What only a store that is made up can show: a log of a million lines, artifacts of every kind,
// names nobody has. All else is tested against the real server.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { bigRun, runs } from "../mock/data.mjs";
import { serve } from "../mock/server.mjs";
import { settled } from "./axe.mjs";
import { launch, openPage } from "./browser.mjs";

const dist = fileURLToPath(new URL("../../dist", import.meta.url));
let browser;
let server;
let url;

before(async () => {
  ({ server, url } = await serve({ dist }));
  browser = await launch();
});
after(async () => {
  await browser.close();
  server.close();
  server.closeAllConnections();
});

/** Runs a test in its own page and fails it on script errors and policy violations. */
function inPage(name, options, body) {
  test(name, { timeout: 300_000 }, async () => {
    const { page, context, problems } = await openPage(browser, options);
    page.setDefaultTimeout(60_000);
    try {
      await body(page);
      assert.deepEqual(problems, []);
    } catch (error) {
      await page.screenshot({ path: `/tmp/e2e-${name.replace(/\W+/g, "-")}.png` }).catch(() => {});
      throw error;
    } finally {
      await context.close();
    }
  });
}

const failed = runs.find((r) => r.workflow.index === 0 && r.state === "failed");
const live = runs.find((r) => r.workflow.index === 0 && r.state === "running");
inPage("parameters survive a reload of the form", {}, async (page) => {
  await page.goto(`${url}/workflows/nightly_orders?start=1`);
  await page.getByRole("dialog").getByLabel("batch_size").fill("777");
  await page.reload();
  assert.equal(await page.getByRole("dialog").getByLabel("batch_size").inputValue(), "777");
});

inPage("too large a backfill is refused with its count", {}, async (page) => {
  await page.goto(`${url}/backfills?new=1&workflow=nightly_orders`);
  const form = page.getByRole("dialog");
  await form.getByLabel("First day").fill("1950-01-01");
  await form.getByLabel("Last day").fill("2026-03-14");
  await form.getByText(/that would be 27,?\d+ runs/).waitFor();
});

inPage("deep links keep filters, tabs, panels; Back closes the panel", {}, async (page) => {
  await page.goto(`${url}/runs?state=failed,cancelled&sort=-duration`);
  await settled(page);
  const pressed = page.locator(".filters [aria-pressed=true]");
  assert.equal(await pressed.count(), 2);
  const states = await page.locator("[role=row] .state").allInnerTexts();
  assert.ok(states.length > 5 && states.every((s) => /Failed|Cancelled/.test(s)));
  await page.getByRole("button", { name: "Cancelled" }).click();
  await page.waitForURL((u) => u.searchParams.get("state") === "failed");
  await page.goto(`${url}/runs/${failed.id}?tab=tasks&state=failed`);
  await page.locator(".tr .link-button").first().click();
  await page.getByRole("complementary").waitFor();
  assert.match(page.url(), /tab=tasks&state=failed&task=/);
  await page.goBack();
  await page.getByRole("complementary").waitFor({ state: "detached" });
  assert.match(page.url(), /tab=tasks&state=failed$/);
});

inPage("drag over the grid chooses cells for one action", {}, async (page) => {
  await page.goto(`${url}/workflows/nightly_orders`);
  const grid = await page.locator(".grid-scroll").boundingBox();
  await page.mouse.move(grid.x + grid.width - 300, grid.y + 58 + 20);
  await page.mouse.down();
  await page.mouse.move(grid.x + grid.width - 240, grid.y + 58 + 60, { steps: 5 });
  await page.mouse.up();
  await page.getByText(/\d+ cells chosen/).waitFor();
  await page.getByRole("button", { name: /^Mark \d+…/ }).click();
  await page
    .getByRole("dialog")
    .getByRole("button", { name: /Mark \d+ tasks succeeded/ })
    .waitFor();
});

inPage("a log of a million lines: link to a line, search with counts, levels", {}, async (page) => {
  await page.goto(`${url}/tasks/${bigRun.id}.1#L777777`);
  await page.getByText("needle: checksum differs").waitFor();
  assert.equal(await page.locator(".log-line.target .log-number").innerText(), "777777");
  await page.getByLabel("Search in the log").fill("duplicate key");
  await page.keyboard.press("Enter");
  await page.getByText(/^\d+ of \d+/).waitFor();
  await page.locator(".log-line.target mark").first().waitFor();
  await page.getByLabel("Level").selectOption("error");
  await page.getByText(/of 1\.0M lines/).waitFor();
  await page.waitForFunction(() => {
    const lines = [...document.querySelectorAll(".log-line")];
    return lines.length > 5 && lines.every((line) => line.classList.contains("level-error"));
  });
  // Markup in a log is text.
  await page.goto(`${url}/tasks/${bigRun.id}.1?level=error,warning`);
  await page.getByText("<b>not markup</b> &amp; not an entity").first().waitFor();
});

inPage("following a live log stops when it is scrolled, and says so", {}, async (page) => {
  const numbers = Array.from({ length: 26 }, (_, i) => i + 1);
  const answers = await Promise.all(
    numbers.map((n) => fetch(`${url}/api/v1/tasks/${live.id}.${n}`).then((r) => r.json())),
  );
  const running = answers.find((t) => t.state === "running");
  assert.ok(running, "the live run has no running task");
  await page.goto(`${url}/tasks/${running.id}`);
  await page.getByText("following").waitFor();
  const total = () => page.locator(".log-foot span").first().innerText();
  const first = await total();
  await page.waitForFunction(
    (text) => document.querySelector(".log-foot span")?.textContent !== text,
    first,
  );
  await page.locator(".log-lines").evaluate((e) => {
    e.scrollTop = 0;
  });
  await page.getByText("Follow: stopped while you read").click();
  await page.getByText("following").waitFor();
});

inPage("artifacts are shown, and what they carry cannot act", {}, async (page) => {
  await page.goto(`${url}/tasks/${bigRun.id}.1?tab=artifacts`);
  await page.getByText("84,112 rows").waitFor();
  await page.getByRole("button", { name: /summary.html/ }).click();
  const frame = page.frameLocator("iframe");
  await frame.getByText("84,112 orders").waitFor();
  assert.equal(await page.title().then((t) => t.includes("owned")), false);
  assert.equal(await page.locator("iframe").getAttribute("sandbox"), "");
  await page.getByRole("button", { name: /report.md/ }).click();
  await page.getByText("2.1 %").waitFor();
  assert.equal(await page.locator(".markdown img").count(), 0);
  await page.getByRole("button", { name: /^loss/ }).click();
  await page.locator(".plot polyline").first().waitFor();
});

inPage("names with markup, emoji, right-to-left text and 500 characters", {}, async (page) => {
  for (const name of [
    "<script>alert('x')</script>",
    "🚀 rocket ✨ metrics",
    "تقرير المبيعات اليومي",
    `long_${"name_".repeat(99)}`,
  ]) {
    await page.goto(`${url}/workflows/${encodeURIComponent(name)}`);
    await page.getByRole("heading", { name }).waitFor();
    await page.getByRole("link", { name: "Runs", exact: true }).last().click();
    await page.getByRole("row").nth(1).waitFor();
  }
});

inPage("the time zone is one for the page, and named", {}, async (page) => {
  await page.goto(`${url}/runs/${failed.id}`);
  const started = page.locator(".page-head time").first();
  assert.match(await started.innerText(), /GMT\+2/);
  await page.getByRole("button", { name: /Times are in/ }).click();
  await page.getByRole("button", { name: /^UTC/ }).last().click();
  assert.match(await started.innerText(), /UTC$/);
  await page.reload();
  await started.waitFor();
  assert.match(await started.innerText(), /UTC$/);
});
