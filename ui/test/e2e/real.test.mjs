// The pages in a real browser, against the real server with real runs.
//   KOBZA=path/to/kobza node --test test/e2e/real.test.mjs

import assert from "node:assert/strict";
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { axe, settled, still } from "./axe.mjs";
import { launch, openPage } from "./browser.mjs";
import { inPages } from "./pages.mjs";
import { client, ended as endOf, freePort, missing, start, stop } from "./server.mjs";

const LONG = `long_${"name_".repeat(99)}`;
const SHOTS = process.env.SHOTS;

let browser;
let folder;
let server;
let url;

before(async () => {
  if (missing) return;
  folder = await mkdtemp(join(tmpdir(), "kobza-ui-"));
  await cp(fileURLToPath(new URL("./workflows", import.meta.url)), join(folder, "workflows"), {
    recursive: true,
  });
  const port = await freePort();
  url = `http://127.0.0.1:${port}`;
  server = await start(folder, port);
  browser = await launch();
});
after(async () => {
  if (missing) return;
  await browser.close();
  await stop(server);
  await rm(folder, { recursive: true, force: true });
});

const inPage = inPages(() => browser, "real");
const api = (...given) => client(url)(...given);
const ended = (run) => endOf(api, run);
const state = (page, word) => page.locator(".page-head .state", { hasText: word }).first();

inPage(
  "a run from the form is watched live, its log read, its failed task rerun",
  {},
  async (page) => {
    await page.goto(`${url}/workflows/orders`);
    await page.getByRole("button", { name: "Run…", exact: true }).click();
    const form = page.getByRole("dialog");
    await form.getByLabel("region").selectOption("us");
    await form.getByLabel("rows").fill("501");
    await form.getByLabel("broken").check();
    await form.getByRole("button", { name: "Start the run" }).click();
    await form.getByText("At most 500").waitFor();
    await form.getByLabel("rows").fill("40");
    await form.getByRole("button", { name: "Start the run" }).click();
    await page.waitForURL(/\/runs\//);
    await state(page, "Failed").waitFor();
    // The group is a panel that folds into one node with its tasks' states.
    await page.getByRole("button", { name: "Fold ingest", exact: true }).click();
    await page.locator(".node", { hasText: "ingest" }).waitFor();
    await page.getByRole("button", { name: "Unfold ingest", exact: true }).click();
    // The failed node is where the eye is: it opens its log.
    await page.locator(".node.look-failed").first().click();
    const panel = page.getByRole("complementary");
    await panel.getByText("3 rows have a price below zero").first().waitFor();
    await page.keyboard.press("Escape");
    await panel.waitFor({ state: "detached" });
    await page.getByRole("button", { name: /Rerun \d+ failed…/ }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByText("What changes").waitFor();
    await dialog.getByRole("button", { name: /^Rerun \d+ tasks$/ }).click();
    await page.getByText(/tasks reopened/).waitFor();
    await state(page, "Succeeded").waitFor();
    // Both attempts and their logs are kept.
    await page.getByRole("link", { name: "Tasks", exact: true }).click();
    await page
      .getByRole("row", { name: /ingest.orders/ })
      .getByRole("button")
      .click();
    await panel.getByText("row 40 of <b>us</b>").waitFor();
    // The command is shown with its values in it.
    await panel.getByRole("link", { name: "Definition" }).click();
    await panel.getByText(/for i in \$\(seq 40\)/).waitFor();
    await panel.getByRole("link", { name: "Log" }).click();
    await panel.getByText("row 40 of <b>us</b>").waitFor();
    assert.equal(await panel.locator(".log-text b").count(), 0);
    assert.ok((await panel.locator(".log-text .a-f2").count()) > 0);
  },
);

inPage("an approval is given, and the run goes on", {}, async (page) => {
  const { id } = await api("/workflows/release/runs", { params: {} });
  await page.goto(url);
  await page.locator("section", { hasText: "Waits for you" }).getByRole("link").first().click();
  await page.getByText("AUC is 0.973. Release the new model?").first().waitFor();
  await page.getByLabel("Comment").fill("looks good");
  await page.getByRole("button", { name: "Approve" }).click();
  await page.getByText("Approved: the run goes on").waitFor();
  assert.equal((await ended(id)).state, "succeeded");
});

inPage("a live log is followed; the run is stopped with a reason", {}, async (page) => {
  const { id } = await api("/workflows/slow/runs", { params: {} });
  await page.goto(`${url}/runs/${id}`);
  await page.getByRole("button", { name: /talk/ }).first().click();
  const panel = page.getByRole("complementary");
  await panel.getByText("following").waitFor();
  const lines = panel.locator(".log-foot span").first();
  const before = await lines.innerText();
  await page.waitForFunction(
    (text) => document.querySelector(".log-foot span")?.textContent !== text,
    before,
  );
  await panel
    .getByText(/^line \d+$/m)
    .first()
    .waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "Stop…" }).click();
  await page.getByLabel(/Reason/).fill("seen enough");
  await page.getByRole("button", { name: "Cancel the run" }).click();
  await state(page, "Cancelled").waitFor();
});

inPage("a backfill is previewed, made, and runs to its end", {}, async (page) => {
  await page.goto(`${url}/backfills?new=1&workflow=orders`);
  const form = page.getByRole("dialog");
  await form.getByLabel("First day").fill("2026-03-27");
  await form.getByLabel("Last day").fill("2026-03-31");
  await form.getByText(/^5 slots/).waitFor();
  await form.getByRole("button", { name: "Start 5 runs" }).click();
  const panel = page.getByRole("complementary", { name: "Backfill" });
  await panel.locator(".page-head .state", { hasText: "Succeeded" }).waitFor();
});

inPage("2,000 instances are one node", {}, async (page) => {
  const { id } = await api("/workflows/wide/runs", { params: {} });
  await ended(id);
  await page.goto(`${url}/runs/${id}`);
  await page.getByRole("button", { name: /many/ }).click();
  const panel = page.getByRole("complementary");
  await panel.getByText("2,000 instances").waitFor();
  await panel.getByText("2,000 tasks").waitFor();
  await panel.getByLabel("Name or index").fill("1234");
  await panel.getByText("many [1234]").waitFor();
});

inPage("search, grid and panel by keyboard", {}, async (page) => {
  await page.goto(url);
  await settled(page);
  await page.keyboard.press("Control+k");
  await page.getByRole("combobox").waitFor();
  await page.keyboard.type("order");
  await page
    .getByRole("option", { name: /orders/ })
    .first()
    .waitFor();
  await page.keyboard.press("Enter");
  await page.waitForURL(/workflows\/orders/);
  await page.locator(".grid-scroll").focus();
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await page.getByRole("complementary").waitFor();
});

inPage("artifacts are shown, and what they carry cannot act", {}, async (page) => {
  const { id } = await api("/workflows/report/runs", { params: {} });
  assert.equal((await ended(id)).state, "succeeded");
  await page.goto(`${url}/runs/${id}?tab=artifacts`);
  const choose = (name) => page.getByRole("button", { name }).click();
  // What was noted: text, a table, a picture, plots, numbers.
  await page.getByText("2.1 %").waitFor();
  assert.equal(await page.locator(".markdown img").count(), 0);
  await choose(/^regions/);
  await page.getByRole("cell", { name: "<b>us</b>" }).waitFor();
  await choose(/^gradient/);
  await page.waitForFunction(() => {
    const image = document.querySelector(".artifact-image");
    return image?.complete && image.naturalWidth === 320;
  });
  await choose(/^week/);
  await page.locator(".plot rect").nth(3).waitFor();
  await choose(/^loss/);
  await page.locator(".plot polyline").first().waitFor();
  // Files: a table of text, JSON, a page that would like to act.
  await choose(/^orders.csv/);
  await page.getByText("200 of").or(page.getByText("the first 200 rows")).waitFor();
  await choose(/^settings.json/);
  await page.getByText("0.1").first().waitFor();
  for (const name of [/^summary.html/, /^drawing.svg/]) {
    await choose(name);
    await page.locator("iframe").waitFor();
    assert.equal(await page.locator("iframe").getAttribute("sandbox"), "");
  }
  await choose(/^summary.html/);
  const frame = page.frameLocator("iframe");
  await frame.getByText("84,112 orders").waitFor();
  assert.equal(await frame.locator("#p").innerText(), "before");
  assert.equal((await page.title()).includes("owned"), false);
  await choose(/^model.bin/);
  await page.getByText("No preview for this kind").waitFor();
  // The content alone is as harmless.
  const link = await page.getByRole("link", { name: "Download" }).getAttribute("href");
  const answer = await fetch(`${url}${link}`);
  assert.match(answer.headers.get("content-disposition"), /^attachment/);
  assert.match(answer.headers.get("content-security-policy"), /^sandbox; default-src 'none'/);
});

inPage("artifacts of an Argo workflow are looked into", {}, async (page) => {
  const { id } = await api("/workflows/argo-report/runs", { params: {} });
  assert.equal((await ended(id)).state, "succeeded");
  await page.goto(`${url}/runs/${id}?tab=artifacts`);
  await page.getByRole("button", { name: /^cities.csv/ }).click();
  await page.getByRole("columnheader", { name: "city" }).waitFor();
  await page.getByRole("cell", { name: "<b>7</b>" }).waitFor();
  await page.getByRole("button", { name: /^note.md/ }).click();
  await page.locator(".markdown strong", { hasText: "well" }).waitFor();
});

inPage("names with emoji and markup stay text", {}, async (page) => {
  const { id } = await api(`/workflows/${encodeURIComponent("🚀 <b> тест")}/runs`, { params: {} });
  await ended(id);
  await page.goto(`${url}/runs/${id}`);
  await page.getByRole("heading", { name: "🚀 <b> тест" }).waitFor();
  await page
    .getByRole("button", { name: /крок один/ })
    .first()
    .click();
  await page.getByText("<script>alert(1)</script>").first().waitFor();
});

test("the first view asks for at most 350 kB of scripts, and nothing is inline", {
  timeout: 300_000,
  skip: missing,
}, async () => {
  const { page, context, problems } = await openPage(browser);
  const scripts = new Set();
  page.on("response", (response) => {
    if (/\.js$/.test(new URL(response.url()).pathname)) scripts.add(response.url());
  });
  const answer = await page.goto(url);
  const policy = answer.headers()["content-security-policy"];
  assert.match(policy, /default-src 'none'/);
  assert.doesNotMatch(policy, /unsafe/);
  assert.equal(answer.headers()["x-content-type-options"], "nosniff");
  await settled(page);
  const sizes = await Promise.all(
    [...scripts].map(async (script) => {
      const bytes = Buffer.from(await (await fetch(script)).arrayBuffer());
      return gzipSync(bytes, { level: 9 }).length;
    }),
  );
  assert.ok(sizes.length > 0);
  const total = sizes.reduce((sum, size) => sum + size, 0);
  assert.ok(total <= 350_000, `${total} bytes`);
  assert.equal(await page.locator("script:not([src]), style, [onclick]").count(), 0);
  assert.deepEqual(problems, []);
  await context.close();
});

inPage("a run deleted while it is open says so, and is not found afterwards", {}, async (page) => {
  const { id } = await api(`/workflows/${encodeURIComponent(LONG)}/runs`, { params: {} });
  await ended(id);
  await page.goto(`${url}/runs/${id}`);
  await page.getByRole("heading", { name: LONG }).waitFor();
  await page.locator(".node").first().waitFor();
  const gone = await fetch(`${url}/api/v1/runs/${id}`, { method: "DELETE" });
  assert.equal(gone.status, 204);
  await page.getByText("This run was deleted while it was open").waitFor();
  await page.reload();
  await page.getByText("This run does not exist").waitFor();
});

inPage(
  "two people clear the same task: neither page breaks, each clearing counts once",
  {},
  async (page) => {
    const { id } = await api("/workflows/fails/runs", { params: {} });
    await ended(id);
    const other = await openPage(browser);
    other.page.setDefaultTimeout(60_000);
    for (const p of [page, other.page]) {
      await p.goto(`${url}/runs/${id}`);
      await p.getByRole("button", { name: /Rerun \d+ failed…/ }).click();
      await p.getByRole("dialog").getByText("What changes").waitFor();
    }
    const press = (p) =>
      p
        .getByRole("dialog")
        .getByRole("button", { name: /^Rerun \d+ tasks?$/ })
        .click();
    await press(page);
    await page.getByText(/tasks? reopened/).waitFor();
    await ended(id);
    await other.page.getByRole("dialog").waitFor();
    const again = other.page
      .getByRole("dialog")
      .getByRole("button", { name: /^Rerun \d+ tasks?$/ });
    if (await again.isEnabled()) await again.click();
    await ended(id);
    const attempts = (await api(`/runs/${id}/tasks`)).items[0].attempt;
    assert.ok(attempts === 2 || attempts === 3, `${attempts} attempts`);
    assert.deepEqual(other.problems, []);
    await other.context.close();
  },
);

inPage(
  "a workflow that does not parse is told of, with its error at its line",
  {},
  async (page) => {
    await page.goto(url);
    await page
      .getByRole("link", { name: /unclear/ })
      .first()
      .waitFor();
    await page.goto(`${url}/workflows`);
    await page
      .getByRole("link", { name: /unclear/ })
      .first()
      .click();
    await page.getByText(/does not parse \(line 5\)/).waitFor();
    const line = page.locator(".cm-bad");
    await line.waitFor();
    assert.match(await line.innerText(), /needs: extrat/);
    await page.locator(".cm-bad-text", { hasText: "extrat" }).waitFor();
    assert.deepEqual(await axe(page), []);
  },
);

inPage("a Luigi run shows its graph, its workers and its resources", {}, async (page) => {
  const call = async (method, data) => {
    const headers = { "content-type": "application/json" };
    const body = JSON.stringify(data);
    const answer = await fetch(`${url}/luigi/api/${method}`, { method: "POST", headers, body });
    assert.equal(answer.status, 200, method);
    return (await answer.json()).response;
  };
  const worker = "Worker(salt=1, workers=2, host=etl-1, username=ann, pid=7)";
  const load = { worker, task_id: "Load_1", family: "Load", params: { day: "1" } };
  await call("update_resource", { resource: "warehouse", amount: 3 });
  await call("add_task", { ...load, resources: { warehouse: 2 } });
  await call("add_task", { worker, task_id: "Report_1", family: "Report", deps: ["Load_1"] });
  await call("add_worker", { worker, info: { host: "etl-1", workers: 2 } });
  assert.equal((await call("get_work", { worker, host: "etl-1" })).task_id, "Load_1");
  const { items } = await api("/runs?workflow=luigi");
  await page.goto(`${url}/runs/${items[0].id}`);
  await page.locator(".node", { hasText: "Report_1" }).waitFor();
  await page.getByRole("link", { name: "Workers", exact: true }).click();
  const shares = page.getByRole("region", { name: "Resources" });
  await shares.getByText("2 of 3").waitFor();
  const row = page.getByRole("row", { name: /host=etl-1/ });
  await row.getByText("1 of 2").waitFor();
  if (SHOTS) await page.screenshot({ path: join(SHOTS, "luigi-workers.png") });
  await row.getByRole("link", { name: "Load_1" }).click();
  await page.getByRole("row", { name: /Load_1/ }).waitFor();
  await page.getByRole("link", { name: "Workers", exact: true }).click();
  // A worker's end of a task is an event: the page follows it.
  await call("add_task", { ...load, status: "DONE", resources: { warehouse: 2 } });
  await shares.getByText("0 of 3").waitFor();
  await row.getByText("nothing").waitFor();
});

inPage("the calendar shows the slots to come", {}, async (page) => {
  await page.goto(`${url}/workflows/orders?tab=calendar&year=${new Date().getUTCFullYear() + 1}`);
  await page.locator(".day.planned").first().waitFor();
  assert.ok((await page.locator(".day.planned").count()) >= 364);
});

inPage("namespaces are switched, and each shows its own", {}, async (page) => {
  const answer = await fetch(`${url}/api/v1/workflows?namespace=lab`, {
    method: "POST",
    headers: { "content-type": "application/yaml", "x-kobza-csrf": "1" },
    body: "name: experiment\ntasks:\n  try: {shell: 'echo tried'}\n",
  });
  assert.equal(answer.status, 201);
  await page.goto(`${url}/workflows`);
  await page.getByRole("row", { name: /orders/ }).waitFor();
  await page.getByRole("button", { name: "Namespace default" }).click();
  await page.getByRole("link", { name: "lab" }).click();
  await page.waitForURL(/namespace=lab/);
  await page.getByRole("link", { name: "Workflows" }).click();
  await page.getByRole("row", { name: /experiment/ }).waitFor();
  assert.equal(await page.getByRole("row", { name: /orders/ }).count(), 0);
  assert.match(page.url(), /namespace=lab/);
});

inPage("a variable, a connection and a limit are made and shown", {}, async (page) => {
  await page.goto(`${url}/variables`);
  await page.getByRole("button", { name: "New variable…" }).click();
  await page.getByLabel("Key").last().fill("bucket");
  await page.getByRole("dialog").getByLabel("Value").fill('{"name": "lake"}');
  await page.getByRole("button", { name: "Keep the variable" }).click();
  await page.getByRole("row", { name: /bucket/ }).waitFor();
  await page.goto(`${url}/connections`);
  await page.getByRole("button", { name: "New connection…" }).click();
  const form = page.getByRole("dialog");
  await form.getByLabel("Name").fill("warehouse");
  await form.getByLabel("Secrets").fill("password=hunter2");
  await form.getByRole("button", { name: "Keep the connection" }).click();
  await page.getByRole("row", { name: /warehouse/ }).waitFor();
  assert.equal((await page.content()).includes("hunter2"), false);
  assert.equal(JSON.stringify(await api("/connections")).includes("hunter2"), false);
  await page.goto(`${url}/limits`);
  await page.getByRole("button", { name: "New limit…" }).click();
  await page.getByRole("dialog").getByLabel("Name").fill("gpu");
  await page.getByRole("button", { name: "Make the limit" }).click();
  await page.getByRole("row", { name: /gpu/ }).waitFor();
});

test("every view: accessible, within the policy, without sideways scrolling", {
  timeout: 900_000,
  skip: missing,
}, async (t) => {
  const runs = (await api("/runs?workflow=orders&limit=10")).items;
  const run = runs.at(-1);
  const tasks = (await api(`/runs/${run.id}/tasks`)).items;
  const trigger = (await api("/triggers")).items[0];
  const backfill = (await api("/backfills")).items[0];
  const views = [
    "/",
    "/workflows",
    ...["grid", "graph", "runs", "calendar", "triggers", "durations", "assets", "code"].map(
      (tab) => `/workflows/orders?tab=${tab}`,
    ),
    "/runs",
    ...["graph", "timeline", "tasks", "events", "artifacts", "details"].map(
      (tab) => `/runs/${run.id}?tab=${tab}`,
    ),
    `/runs/${(await api("/runs?workflow=luigi")).items[0].id}?tab=workers`,
    ...["log", "why", "values", "artifacts", "detail", "events"].map(
      (tab) => `/tasks/${tasks[0].id}?tab=${tab}`,
    ),
    `/runs/${run.id}?task=${tasks[0].id}`,
    "/assets",
    "/assets?show=lineage",
    ...["partitions", "checks", "history", "about"].map(
      (tab) => `/asset/warehouse/orders?tab=${tab}`,
    ),
    `/triggers?trigger=${encodeURIComponent(trigger.id)}`,
    `/backfills?backfill=${encodeURIComponent(backfill.id)}`,
    "/limits?limit=warehouse",
    "/events",
    "/connections",
    "/variables",
    ...["health", "users", "tokens", "audit"].map((tab) => `/admin?tab=${tab}`),
    `/compare?runs=${runs
      .slice(0, 2)
      .map((r) => r.id)
      .join(",")}`,
  ];
  for (const [mode, options] of [
    ["light", {}],
    ["dark", { dark: true }],
    ["narrow", { width: 360, height: 740 }],
  ]) {
    const { page, context, problems } = await openPage(browser, options);
    for (const view of views) {
      await t.test(`${mode} ${view}`, async () => {
        await page.goto(url + view);
        await settled(page);
        await still(page);
        if (SHOTS)
          await page.screenshot({
            path: join(SHOTS, `${mode}-${view.replace(/\W+/g, "-").slice(0, 60)}.png`),
          });
        assert.deepEqual(await axe(page), []);
        assert.deepEqual(await page.locator(".problem[role=alert] .strong").allInnerTexts(), []);
        assert.deepEqual(problems.splice(0), []);
        assert.ok(
          (await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth)) <=
            0,
        );
      });
    }
    await context.close();
  }
});

inPage(
  "the server is restarted under an open page: a banner, then live again",
  {},
  async (page) => {
    const port = Number(new URL(url).port);
    await page.goto(`${url}/workflows/release?start=1`);
    await page.getByRole("dialog").getByLabel("Note").fill("kept while it was away");
    await stop(server);
    await page.getByText("The server does not answer.").first().waitFor();
    server = await start(folder, port);
    await page.locator(".banner").waitFor({ state: "detached" });
    const note = page.getByRole("dialog").getByLabel("Note");
    assert.equal(await note.inputValue(), "kept while it was away");
    await page.getByRole("button", { name: "Start the run" }).click();
    await page.waitForURL(/\/runs\//);
    await page.locator(".node", { hasText: "approve" }).waitFor();
    // What happened before is still told.
    await page.goto(`${url}/events?workflow=orders`);
    await page
      .getByRole("row", { name: /orders/ })
      .first()
      .waitFor();
  },
);
