// The pages in a real browser, against the busy mock store.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { bigRun, runs } from "../mock/data.mjs";
import { serve } from "../mock/server.mjs";
import { axe, settled } from "./axe.mjs";
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
  test(name, { timeout: 60_000 }, async () => {
    const { page, context, problems } = await openPage(browser, options);
    page.setDefaultTimeout(10_000);
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
const VIEWS = {
  home: "/",
  workflows: "/workflows",
  grid: "/workflows/nightly_orders",
  "workflow graph": "/workflows/nightly_orders?tab=graph",
  calendar: "/workflows/nightly_orders?tab=calendar",
  durations: "/workflows/nightly_orders?tab=durations",
  code: "/workflows/broken_report?tab=code",
  form: "/workflows/nightly_orders?start=1",
  runs: "/runs",
  "run graph": `/runs/${failed.id}`,
  timeline: `/runs/${failed.id}?tab=timeline`,
  tasks: `/runs/${live.id}?tab=tasks`,
  parameters: `/runs/${failed.id}?tab=details`,
  "task panel": `/runs/${failed.id}?task=${failed.id}.1`,
  log: `/tasks/${bigRun.id}.1`,
  why: `/tasks/${live.id}.8?tab=why`,
  values: `/tasks/${failed.id}.1?tab=values`,
  definition: `/tasks/${failed.id}.6?tab=detail`,
  artifacts: `/tasks/${bigRun.id}.1?tab=artifacts`,
  assets: "/assets",
  lineage: "/assets?show=lineage",
  partitions: "/asset/events/hourly",
  matrix: "/asset/sales/by_region",
  backfills: "/backfills?backfill=bf1",
  "new backfill": "/backfills?new=1&workflow=nightly_orders",
  triggers: "/triggers?trigger=tr-0",
  limits: "/limits?limit=warehouse",
  events: "/events",
  connections: "/connections",
  variables: "/variables",
  admin: "/admin",
  compare: `/compare?runs=${runs
    .filter((r) => r.workflow.index === 0)
    .slice(4, 7)
    .map((r) => r.id)
    .join(",")}`,
};
for (const [name, path] of Object.entries(VIEWS)) {
  for (const [mode, options] of [
    ["light", {}],
    ["dark", { dark: true }],
    ["narrow", { width: 360, height: 740 }],
  ]) {
    inPage(
      `${name}, ${mode}: no violation of WCAG AA, of the policy, of the width`,
      options,
      async (page) => {
        await page.goto(url + path);
        await settled(page);
        await page.waitForTimeout(250);
        assert.deepEqual(await axe(page), []);
        const wide = await page.evaluate(
          () => document.documentElement.scrollWidth - window.innerWidth,
        );
        assert.ok(wide <= 0, `scrolls sideways by ${wide} px`);
      },
    );
  }
}

inPage("a run from the form, live, its log, its failed task rerun", {}, async (page) => {
  await page.goto(`${url}/workflows/nightly_orders`);
  await page.getByRole("button", { name: "Run…" }).click();
  const form = page.getByRole("dialog");
  await form.getByLabel("region").selectOption("us");
  await form.getByLabel("batch_size").fill("0");
  await form.getByLabel("Full refresh").check();
  await form.getByRole("button", { name: "Start the run" }).click();
  await form.getByText("At least 1").waitFor();
  await form.getByLabel("batch_size").fill("250");
  await form.getByRole("button", { name: "Start the run" }).click();
  await page.waitForURL(/\/runs\//);
  // It runs by itself on the page: nothing is reloaded.
  await page.locator(".page-head .state", { hasText: "Running" }).waitFor();
  await page
    .locator(".page-head .state", { hasText: "Failed" })
    .first()
    .waitFor({ timeout: 20_000 });
  await page.getByRole("link", { name: "Parameters and notes" }).click();
  await page.getByText("250").waitFor();
  await page.getByRole("link", { name: "Graph", exact: true }).click();
  await page.locator(".node.look-failed").first().click();
  await page.getByRole("complementary").getByRole("region", { name: "Log lines" }).waitFor();
  await page.getByRole("button", { name: "Close panel" }).click();
  await page.getByRole("button", { name: /Rerun \d+ failed…/ }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByText("What changes").waitFor();
  await dialog.getByRole("button", { name: /^Rerun \d+ tasks$/ }).click();
  await page.getByText(/tasks reopened/).waitFor();
  await page
    .locator(".page-head .state", { hasText: "Succeeded" })
    .first()
    .waitFor({ timeout: 20_000 });
});

inPage("parameters survive a reload of the form", {}, async (page) => {
  await page.goto(`${url}/workflows/nightly_orders?start=1`);
  await page.getByRole("dialog").getByLabel("batch_size").fill("777");
  await page.reload();
  assert.equal(await page.getByRole("dialog").getByLabel("batch_size").inputValue(), "777");
});

inPage("an approval is given on the page that asks for it", {}, async (page) => {
  await page.goto(url);
  await page.locator("section", { hasText: "Waits for you" }).getByRole("link").first().click();
  await page.getByText("Release the new model?").waitFor();
  await page.getByLabel(/Share of traffic/).fill("500");
  await page.getByRole("button", { name: "Approve" }).click();
  await page.getByText("At most 100").waitFor();
  await page.getByLabel(/Share of traffic/).fill("20");
  await page.getByRole("button", { name: "Approve" }).click();
  await page.getByText("Approved: the run goes on").waitFor();
  await page.locator(".page-head .state", { hasText: "Succeeded" }).waitFor();
});

inPage("a backfill is previewed, made, paused and resumed", {}, async (page) => {
  await page.goto(`${url}/workflows/nightly_orders`);
  await page.getByRole("link", { name: "Backfill…" }).click();
  const form = page.getByRole("dialog");
  await form.getByLabel("First day").fill("2026-03-01");
  await form.getByLabel("Last day").fill("2026-03-14");
  await form.getByText(/14 slots/).waitFor();
  await form.getByRole("button", { name: /^Start \d+ runs$/ }).click();
  const panel = page.getByRole("complementary", { name: "Backfill" });
  await panel.getByRole("button", { name: "Pause" }).click();
  await panel.getByText("Paused", { exact: true }).first().waitFor();
  await panel.getByRole("button", { name: "Go on" }).click();
  await panel.getByText("Running", { exact: true }).first().waitFor();
});

inPage("too large a backfill is refused with its count", {}, async (page) => {
  await page.goto(`${url}/backfills?new=1&workflow=nightly_orders`);
  const form = page.getByRole("dialog");
  await form.getByLabel("First day").fill("1950-01-01");
  await form.getByLabel("Last day").fill("2026-03-14");
  await form.getByText(/that would be 27,?\d+ runs/).waitFor();
});

inPage("everything by keyboard: search, grid, panel, help", {}, async (page) => {
  await page.goto(url);
  await settled(page);
  await page.keyboard.press("Control+k");
  await page.getByRole("combobox").waitFor();
  await page.keyboard.type("nightly_or");
  await page
    .getByRole("option", { name: /nightly_orders/ })
    .first()
    .waitFor();
  await page.keyboard.press("Enter");
  await page.waitForURL(/workflows\/nightly_orders/);
  await page.locator(".grid-scroll").focus();
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowDown");
  await page.locator("[aria-live]", { hasText: "ingest/orders" }).waitFor({ state: "attached" });
  await page.keyboard.press("Enter");
  await page.getByRole("complementary", { name: /ingest\/orders/ }).waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("complementary").waitFor({ state: "detached" });
  assert.ok(await page.locator(".grid-scroll").evaluate((e) => e === document.activeElement));
  await page.keyboard.press("?");
  await page.getByRole("dialog", { name: "Keys" }).waitFor();
  await page.keyboard.press("Escape");
  await page.keyboard.press("g");
  await page.keyboard.press("r");
  await page.waitForURL(/\/runs$/);
  await settled(page);
  await page.keyboard.press("/");
  await page.keyboard.type("churn");
  await page.waitForURL(/q=churn/);
  await page
    .getByRole("row", { name: /churn_model/ })
    .first()
    .waitFor();
  await page
    .getByRole("row", { name: /churn_model/ })
    .first()
    .focus();
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/runs\/.+/);
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

inPage("a run deleted while it is open says so and stays readable", {}, async (page) => {
  const gone = runs.find((r) => r.workflow.index === 1 && r.state === "succeeded");
  await page.goto(`${url}/runs/${gone.id}`);
  await page.locator(".node").first().waitFor();
  await fetch(`${url}/api/v1/runs/bulk`, {
    method: "POST",
    headers: { "x-kobza-csrf": "1" },
    body: JSON.stringify({ action: "delete", ids: [gone.id], dry_run: false }),
  });
  await page.getByText("This run was deleted while it was open").waitFor();
  await page.goto(`${url}/runs/${gone.id}`);
  await page.getByText("This run does not exist").waitFor();
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

test("a dead server: a banner, nothing lost in a form, and back again", {
  timeout: 60_000,
}, async () => {
  const own = await serve({ dist });
  const { port } = new URL(own.url);
  const { page, context } = await openPage(browser);
  await page.goto(`${own.url}/workflows/nightly_orders?start=1`);
  const form = page.getByRole("dialog");
  await form.getByLabel("batch_size").fill("321");
  own.server.close();
  own.server.closeAllConnections();
  await page.getByText("The server does not answer.").first().waitFor({ timeout: 15_000 });
  await form.getByRole("button", { name: "Start the run" }).click();
  await form.getByText("Nothing was changed; try again.").waitFor();
  const again = await serve({ dist, port: Number(port) });
  await page.locator(".banner").waitFor({ state: "detached", timeout: 20_000 });
  assert.equal(await form.getByLabel("batch_size").inputValue(), "321");
  await form.getByRole("button", { name: "Start the run" }).click();
  await page.waitForURL(/\/runs\//);
  await context.close();
  again.server.close();
  again.server.closeAllConnections();
});
