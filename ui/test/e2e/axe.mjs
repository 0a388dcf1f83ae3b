// Accessibility of what a page shows, by axe.

import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

const source = await readFile(
  fileURLToPath(new URL("../../node_modules/axe-core/axe.min.js", import.meta.url)),
  "utf8",
);

/** Violations of WCAG 2.2 A and AA, in words; an empty list is what is wanted. */
export async function axe(page) {
  // Evaluated through the debugger, which the page's policy does not bind.
  await page.evaluate(source);
  const found = await page.evaluate(() =>
    window.axe.run(document, {
      runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"],
    }),
  );
  return found.violations.map(
    (v) =>
      `${v.id}: ${v.nodes
        .slice(0, 3)
        .map((n) => `${n.target} ${n.any[0]?.message ?? n.all[0]?.message ?? ""}`)
        .join(" | ")}`,
  );
}

/** Waits until the view has its answer. */
export const settled = (page) =>
  page.waitForFunction(
    () =>
      !document.querySelector(".loading") &&
      document.querySelector(
        ".card, .graph .node, .log-line, .grid-view, .empty, .timeline, .months, .reasons, .facts, .value",
      ),
  );

/** Waits until nothing moves and all fonts are there. */
export const still = (page) =>
  page.evaluate(async () => {
    await document.fonts.ready;
    const ending = document
      .getAnimations()
      .filter((animation) => animation.effect?.getTiming().iterations !== Infinity);
    await Promise.all(ending.map((animation) => animation.finished.catch(() => {})));
    await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  });
