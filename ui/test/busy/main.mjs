// Makes a busy store with a real server, and leaves the server on until Ctrl-C.
//   KOBZA=path/to/kobza node test/busy/main.mjs FOLDER [small]

import { existsSync, openSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { freePort, start, stop } from "../e2e/server.mjs";
import { FULL, SMALL, write } from "./definitions.mjs";
import { fill } from "./store.mjs";

const [given, kind] = process.argv.slice(2);
if (!given) {
  console.error("usage: node test/busy/main.mjs FOLDER [small]");
  process.exit(2);
}
const folder = resolve(given);
const size = kind === "small" ? SMALL : FULL;
const dailies = await write(folder, size);
const port = await freePort();
const url = `http://127.0.0.1:${port}`;
const server = await start(folder, port, [
  "ignore",
  openSync(join(folder, "server.log"), "a"),
  openSync(join(folder, "server.log"), "a"),
]);
const places = join(folder, "places.json");
if (existsSync(places)) {
  console.log("the store is there already");
} else {
  const began = Date.now();
  const tell = (text) =>
    console.log(`${String(Math.round((Date.now() - began) / 1000)).padStart(5)} s  ${text}`);
  const made = await fill(url, size, dailies, tell).catch(async (error) => {
    await stop(server);
    throw error;
  });
  await writeFile(places, JSON.stringify(made));
}
console.log(await readFile(places, "utf8"));
console.log(`open ${url}; Ctrl-C ends it`);
process.on("SIGINT", () => void stop(server).then(() => process.exit(0)));
process.on("SIGTERM", () => void stop(server).then(() => process.exit(0)));
