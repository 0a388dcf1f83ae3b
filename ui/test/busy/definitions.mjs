// The workflows of a busy store, as files. Everything follows from numbers.

import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

export const FULL = {
  workflows: 50,
  runs: 10_000,
  tasks: 100_000,
  nodes: 2_000,
  nodeRuns: 60,
  partitions: 100_000,
  made: 400,
  lines: 1_000_000,
};
/** The same store with less of everything, for the tests. */
export const SMALL = {
  workflows: 20,
  runs: 200,
  tasks: 3_000,
  nodes: 200,
  nodeRuns: 4,
  partitions: 100_000,
  made: 30,
  lines: 200_000,
};

export const TRICKY = [
  "<b>bold<b> & <img src=x onerror=alert(1)>",
  "🚀 rocket ✨ metrics",
  "تقرير المبيعات اليومي",
  `long_${"name_".repeat(99)}`,
];

const TEAMS = ["finance", "growth", "supply", "risk", "ml"];
const TOPICS = [
  "orders",
  "payments",
  "customers",
  "inventory",
  "clicks",
  "refunds",
  "shipments",
  "prices",
  "campaigns",
  "sessions",
];

/** YAML is a superset of JSON. */
const yaml = (value) => JSON.stringify(value, null, 1);
const wait = (ms) => ({ wait: `${ms}ms` });
/** True for one run in `of` (a power of 16 apart): by the last digits of its id. */
const unlucky = (digits) => `{{ run.id[-1:] in '${digits}' }}`;

/** A daily load: sources, checks, parts by region, reports. Now and then a check does not hold. */
function daily(i) {
  const team = TEAMS[i % TEAMS.length];
  const topic = TOPICS[Math.floor(i / TEAMS.length) % TOPICS.length];
  const sources = 1 + (i % 4);
  const ingest = {};
  for (let n = 0; n < sources; n += 1)
    ingest[`source_${n + 1}`] = wait(5 + ((i * 7 + n * 13) % 40));
  return {
    name: `${team}_${topic}`,
    description: `${topic} of ${team}, every day: load, check, publish`,
    tags: [team, "daily", ...(i % 3 === 0 ? ["critical"] : [])],
    schedule: {
      cron: `${(i * 7) % 60} ${i % 6} * * *`,
      timezone: i % 2 ? "Europe/Kyiv" : "America/New_York",
      catchup: false,
    },
    params: {
      region: {
        type: "string",
        enum: ["eu", "us", "apac"],
        default: "eu",
        description: "Whose rows",
      },
      batch_size: { type: "integer", minimum: 1, maximum: 10000, default: 500 },
    },
    pools: { warehouse: 8 },
    tasks: {
      ingest: { group: { tasks: ingest } },
      row_counts: { noop: true, needs: "ingest" },
      fresh: {
        needs: "ingest",
        when: unlucky("7"),
        shell:
          "echo 'WARN  rates are 26 h old'; echo 'ERROR rates are older than a day' >&2; exit 1",
      },
      by_region: { ...wait(10 + (i % 20)), needs: "row_counts", map: ["eu", "us", "apac"] },
      load: {
        ...wait(8),
        needs: ["by_region", "fresh"],
        rule: "none_failed",
        limits: "warehouse",
        produces: [`warehouse/${team}/${topic}`],
        ...(i > 0 && i % 2
          ? {
              consumes: [
                `warehouse/${TEAMS[(i - 1) % TEAMS.length]}/${TOPICS[Math.floor((i - 1) / TEAMS.length) % TOPICS.length]}`,
              ],
            }
          : {}),
      },
      report: { noop: true, needs: "load", produces: [`reports/${topic}/${team}`] },
    },
  };
}

/** A project of many models in layers of groups; each reads some of the layer before. */
function models(count) {
  const [layers, tasks] = [20, {}];
  const wide = Math.ceil(count / layers);
  let made = 0;
  for (let l = 0; l < layers && made < count; l += 1) {
    for (let n = 0; n < wide && made < count; n += 1, made += 1) {
      const reads = l === 0 ? [] : [n, (n * 7 + 3) % wide, ...(n % 4 ? [] : [(n * 13) % wide])];
      const needs = [...new Set(reads)].map((r) => `layer_${l - 1}_model_${r}`);
      tasks[`layer_${l}_model_${n}`] = { noop: true, ...(needs.length ? { needs } : {}) };
    }
  }
  return { name: "dbt_all_models", description: `${count} models`, tags: ["dbt"], tasks };
}

function special(size) {
  return [
    {
      name: "resize_images",
      description: "One task for each picture",
      tags: ["ml"],
      tasks: {
        list: {
          shell: `awk 'BEGIN { for (i = 1; i <= ${size.lines}; i++) { if (i == ${Math.round(size.lines * 0.777)}) print "ERROR needle: checksum differs"; else if (i % 9973 == 0) print "ERROR duplicate key " i " <b>not markup</b> &amp; not an entity"; else if (i % 997 == 0) print "WARN  slow answer of shard " i % 16; else printf "\\033[32mINFO\\033[0m  picture %d\\n", i } }'`,
        },
        resize: { noop: true, needs: "list", map: { range: size.tasks } },
        index: { noop: true, needs: "resize" },
      },
    },
    models(size.nodes),
    {
      name: "events_hourly",
      description: "An hour of events each",
      tags: ["growth"],
      partitions: { type: "hourly", start: hoursAgo(size.partitions) },
      tasks: { load: { noop: true, produces: ["events/hourly"] } },
    },
    {
      name: "sales_by_region",
      description: "Sales by region and day",
      tags: ["finance"],
      partitions: {
        type: "product",
        dimensions: {
          day: { type: "daily", start: "2026-01-01" },
          region: { type: "static", keys: ["eu", "us", "apac", "latam"] },
        },
      },
      tasks: {
        load: {
          noop: true,
          produces: ["sales/by_region"],
          checks: [{ name: "not empty", shell: "echo 1204 rows" }],
        },
      },
    },
    {
      name: "release_model",
      tags: ["ml"],
      tasks: {
        train: { shell: "echo auc=0.973 > $KOBZA_OUTPUT" },
        approve: { approval: { message: "AUC is 0.973. Release the new model?" }, needs: "train" },
        deploy: { noop: true, needs: "approve" },
      },
    },
    {
      name: "stream_prices",
      tags: ["risk"],
      tasks: {
        talk: {
          shell: 'for i in $(seq 1 100000); do echo "INFO  price $i of EURUSD"; sleep 0.3; done',
        },
        after: { noop: true, needs: "talk" },
      },
    },
    {
      name: "crowded",
      description: "More want the licence than it has seats",
      tags: ["supply"],
      pools: { licence: 2 },
      tasks: { seat: { shell: "sleep 86400", limits: "licence", map: { range: 12 } } },
    },
    ...TRICKY.map((name) => ({
      name,
      tasks: { [`task of ${name}`.slice(0, 200)]: { noop: true } },
    })),
  ];
}

function hoursAgo(hours) {
  return new Date(Math.floor(Date.now() / 3_600_000) * 3_600_000 - hours * 3_600_000)
    .toISOString()
    .slice(0, 10);
}

const BROKEN = `name: quarterly_report
description: A task needs what is not there
tasks:
  extract: {shell: "echo rows"}
  load: {shell: "echo loaded", needs: extrat}
`;

const ARGO = `apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {name: hello-argo}
spec:
  entrypoint: main
  templates:
    - name: main
      steps:
        - - {name: first, template: say}
        - - {name: second, template: say}
    - name: say
      container: {image: busybox, command: [echo], args: [hello]}
`;

/** Writes the definitions; answers the names of the daily ones. */
export async function write(folder, size) {
  const place = join(folder, "workflows");
  await mkdir(place, { recursive: true });
  const rest = special(size);
  const dailies = Array.from({ length: size.workflows - rest.length - 2 }, (_, i) => daily(i));
  let n = 0;
  for (const workflow of [...dailies, ...rest]) {
    n += 1;
    await writeFile(join(place, `w${String(n).padStart(2, "0")}.yaml`), yaml(workflow));
  }
  await writeFile(join(place, "broken.yaml"), BROKEN);
  await writeFile(join(place, "argo.yaml"), ARGO);
  return dailies;
}
