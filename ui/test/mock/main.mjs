import { fileURLToPath } from "node:url";
import { serve } from "./server.mjs";

const { url } = await serve({
  port: Number(process.env.PORT ?? 7070),
  dist: fileURLToPath(new URL("../../dist", import.meta.url)),
});
console.log(url);
