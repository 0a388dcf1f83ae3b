import type { Words } from "./words";

export const luigi: Partial<Words> = {
  workflow: "task family",
  attempt: "try",
  limits: "resources",
  states: {
    ready: "Pending",
    succeeded: "Done",
    removed: "Disabled",
  },
};
