// Fills a store by what anyone can do: definitions, backfills, runs started over the API.

import { client, ended } from "../e2e/server.mjs";

const DAY = 86_400_000;
const day = (back) => new Date(Date.now() - back * DAY).toISOString().slice(0, 10);

async function done(api, id) {
  for (;;) {
    const now = await api(`/backfills/${id}`);
    if (!["running", "paused"].includes(now.state)) return now;
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

/** Makes everything, and answers the runs and tasks that the views are measured on. */
export async function fill(url, size, dailies, tell = () => {}) {
  const api = client(url);
  const start = (workflow, body = {}) =>
    api(`/workflows/${encodeURIComponent(workflow)}/runs`, { params: {}, ...body });

  tell(`a run of ${size.tasks} tasks with a log of ${size.lines} lines`);
  const big = await start("resize_images");
  tell(`${size.nodeRuns} runs of ${size.nodes} nodes`);
  for (let n = 0; n < size.nodeRuns; n += 1) await ended(api, (await start("dbt_all_models")).id);

  tell(`${size.made} of ${size.partitions} partitions`);
  const hour = (back) => new Date(Date.now() - back * 3_600_000).toISOString().slice(0, 13);
  const hours = await api("/backfills", {
    workflow: "events_hourly",
    partitions: Array.from({ length: size.made }, (_, n) => `${hour(n + 2)}:00`),
    parallelism: 16,
    only: "missing",
  });
  const regions = await api("/backfills", {
    workflow: "sales_by_region",
    partitions: Array.from({ length: 20 }, (_, n) =>
      ["eu", "us", "apac"].map((r) => `${day(n + 2)}|${r}`),
    ).flat(),
    parallelism: 8,
    only: "missing",
  });
  await done(api, hours.id);
  await done(api, regions.id);

  const each = Math.ceil((size.runs - size.made - size.nodeRuns) / dailies.length);
  let made = 0;
  for (const workflow of dailies) {
    const { id } = await api("/backfills", {
      workflow: workflow.name,
      from: day(each),
      to: day(1),
      parallelism: 16,
      only: "missing",
      params: { region: "eu" },
    });
    await done(api, id);
    made += 1;
    tell(`${workflow.name}: ${each} runs (${made} of ${dailies.length} workflows)`);
  }
  await start("release_model");
  await start("crowded");
  const live = await start("stream_prices");
  await ended(api, big.id);
  const task = async (run, name) =>
    (await api(`/runs/${run}/tasks?search=${name}`)).items.find((t) => t.name.startsWith(name)).id;
  const failed = (await api(`/runs?state=failed&limit=1`)).items[0];
  return {
    big: big.id,
    log: await task(big.id, "list"),
    live: live.id,
    liveTask: await task(live.id, "talk"),
    failed: failed.id,
    daily: dailies[0].name,
  };
}
