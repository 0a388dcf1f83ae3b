import type { Words } from "./words";

export const airflow: Partial<Words> = {
  workflow: "DAG",
  run: "DAG run",
  runs: "DAG runs",
  task: "task instance",
  tasks: "task instances",
  attempt: "try number",
  interval: "logical date",
  intervalStartOnly: true,
  params: "conf",
  values: "XCom",
  inputs: "operator arguments",
  outputs: "XCom",
  rendered: "rendered templates",
  limits: "pools",
  start: "Trigger",
  rerun: "Clear",
  states: {
    pending: "No status",
    ready: "Scheduled",
    retry_wait: "Up for retry",
    rescheduled: "Up for reschedule",
    succeeded: "Success",
  },
};
