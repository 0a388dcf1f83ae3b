// What people of each system call things. Inside of that system's workflows the pages speak so;
// this folder is the only place that knows.

import { airflow } from "./airflow";
import { argo } from "./argo";
import { luigi } from "./luigi";

/** Words of a dialect. All are whole terms, in the case of a sentence's middle. */
export interface Words {
  workflow: string;
  run: string;
  runs: string;
  task: string;
  tasks: string;
  /** One try of a task. */
  attempt: string;
  /** What stands before a run's interval; null: the interval alone. */
  interval: string | null;
  /** Show only where the interval begins: that is what the system names a run by. */
  intervalStartOnly: boolean;
  params: string;
  /** What a task takes and gives. */
  values: string;
  inputs: string;
  outputs: string;
  /** The command or text as it is run. */
  rendered: string;
  limits: string;
  /** Verbs, as buttons say them. */
  start: string;
  rerun: string;
  /** States that it has another word for. */
  states: Record<string, string>;
}

export const NATIVE: Words = {
  workflow: "workflow",
  run: "run",
  runs: "runs",
  task: "task",
  tasks: "tasks",
  attempt: "attempt",
  interval: null,
  intervalStartOnly: false,
  params: "parameters",
  values: "inputs and outputs",
  inputs: "inputs",
  outputs: "outputs",
  rendered: "what is run",
  limits: "limits",
  start: "Run",
  rerun: "Rerun",
  states: {},
};

const DIALECTS: Record<string, Partial<Words>> = { airflow, argo, luigi };

export function wordsOf(dialect: string | null | undefined): Words {
  const own = dialect && Object.hasOwn(DIALECTS, dialect) ? DIALECTS[dialect] : undefined;
  return own ? { ...NATIVE, ...own } : NATIVE;
}

/** As the beginning of a line. */
export const upper = (term: string): string => term.charAt(0).toUpperCase() + term.slice(1);
