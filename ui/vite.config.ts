import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

const server = process.env.KOBZA_URL ?? "http://127.0.0.1:7070";

export default defineConfig({
  plugins: [react()],
  build: {
    target: "es2022",
    // The page's own /assets address belongs to the data assets view.
    assetsDir: "static",
    // The content security policy allows no data: fonts, so nothing is inlined.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  worker: { format: "iife" },
  server: {
    host: "127.0.0.1",
    proxy: { "/api": { target: server, changeOrigin: true } },
  },
  test: {
    environment: "jsdom",
    include: ["src/**/*.test.{ts,tsx}"],
    setupFiles: ["test/setup.ts"],
    // One zone for every machine: tests state the others by name.
    env: { TZ: "UTC" },
  },
});
