// A page of its own for each test, which fails on script errors and policy violations.

import assert from "node:assert/strict";
import { test } from "node:test";
import { openPage } from "./browser.mjs";
import { missing } from "./server.mjs";

/** `browser` answers the browser once it is there. */
export const inPages = (browser, kind) => (name, options, body) =>
  test(name, { timeout: 300_000, skip: missing }, async () => {
    const { page, context, problems } = await openPage(browser(), options);
    page.setDefaultTimeout(60_000);
    try {
      await body(page);
      assert.deepEqual(problems, []);
    } catch (error) {
      await page
        .screenshot({ path: `/tmp/${kind}-${name.replace(/\W+/g, "-").slice(0, 60)}.png` })
        .catch(() => {});
      throw error;
    } finally {
      await context.close();
    }
  });
