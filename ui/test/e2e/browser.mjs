// Debian's Chromium, driven by playwright-core.

import { chromium } from "playwright-core";

export const launch = () =>
  chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-dev-shm-usage",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });

/** A page that fails on script errors and policy violations: they are collected in `problems`. */
export async function openPage(browser, { dark = false, width = 1360, height = 860 } = {}) {
  const context = await browser.newContext({
    viewport: { width, height },
    colorScheme: dark ? "dark" : "light",
    timezoneId: "Europe/Kyiv",
    locale: "en-GB",
    reducedMotion: "reduce",
  });
  const page = await context.newPage();
  const problems = [];
  page.on("pageerror", (error) => problems.push(`script: ${error.message}`));
  page.on("console", (message) => {
    const text = message.text();
    // What a sandboxed artifact tried and could not.
    if (/sandboxed|example\.org\/tracker/.test(text)) return;
    if (
      /Content Security Policy|violates/.test(text) ||
      (message.type() === "error" && !/Failed to load resource|ERR_/.test(text))
    )
      problems.push(`console: ${text}`);
  });
  return { page, context, problems };
}
