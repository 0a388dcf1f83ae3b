import type { Words } from "./words";

export const argo: Partial<Words> = {
  workflow: "workflow template",
  run: "workflow",
  runs: "workflows",
  task: "node",
  tasks: "nodes",
  attempt: "retry",
  params: "arguments",
  rendered: "resolved template",
  limits: "synchronization",
  start: "Submit",
  rerun: "Retry",
  states: {
    upstream_failed: "Omitted",
  },
};
