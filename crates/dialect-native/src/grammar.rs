//! The native format: every field, its form and its meaning.

use crate::shape::{Field, Object, Shape};
use crate::trigger_grammar::TRIGGER;

use Shape::{
    Any, Asset, Bool, Duration, Integer, List, Map, Mapping, Name, Null, Number, OneOf, Scalar,
    Size, Text, Word,
};

pub(crate) const fn field(name: &'static str, shape: Shape, doc: &'static str) -> Field {
    Field { name, shape, doc, required: false, only: &[] }
}

pub(crate) const fn required(name: &'static str, shape: Shape, doc: &'static str) -> Field {
    Field { name, shape, doc, required: true, only: &[] }
}

pub(crate) const fn only(
    kinds: &'static [&'static str],
    name: &'static str,
    shape: Shape,
    doc: &'static str,
) -> Field {
    Field { name, shape, doc, required: false, only: kinds }
}

pub(crate) const COUNT: Shape = Integer { min: 1, max: 1_000_000 };

/// Kinds of task, each a field of its own.
pub(crate) const KINDS: &[&str] =
    &["noop", "shell", "python", "sql", "http", "approval", "suspend", "wait", "workflow", "group"];

/// Kinds whose body is a local process.
const PROCESSES: &[&str] = &["shell", "python", "sql", "http"];

const HOOK_KINDS: &[&str] = &["noop", "shell", "python", "sql", "http", "workflow"];
const CHECK_KINDS: &[&str] = &["shell", "python", "sql", "http"];

/// `rule`: when a task may run, by what became of the tasks it needs.
pub(crate) const RULES: &[&str] = &[
    "all_succeeded",
    "all_done",
    "all_failed",
    "one_succeeded",
    "one_failed",
    "one_done",
    "none_failed",
    "none_failed_min_one_success",
    "none_skipped",
    "all_skipped",
    "always",
];

/// Causes of failure that `retries.on` can name.
pub(crate) const RETRY_CAUSES: &[&str] =
    &["code", "infrastructure", "timeout", "lost", "limit", "template", "check"];

pub(crate) static WORKFLOW: Object = Object {
    name: "workflow",
    doc: "a workflow",
    one_of: &[],
    fields: &[
        required("name", Name, "Its name, unique in its namespace."),
        field("description", Text, "What it is for."),
        field("tags", List(&Name), "Words to find it by."),
        field("namespace", Name, "Where it belongs; `default` when absent."),
        field(
            "params",
            Map(&Mapping),
            "Parameters by name, each a JSON Schema; one without `default` must be given.",
        ),
        field(
            "schedule",
            OneOf(&[Text, Shape::Object(&TRIGGER)]),
            "When it starts by itself: a cron pattern or a trigger.",
        ),
        field("triggers", List(&Shape::Object(&TRIGGER)), "What starts it by itself."),
        field("env", Map(&Scalar), "Environment variables of all its tasks (templates)."),
        field(
            "defaults",
            Shape::Object(&DEFAULTS),
            "Fields that tasks have unless they say otherwise.",
        ),
        field("timeout", Duration, "How long a run may take."),
        field("max_active_runs", COUNT, "So many runs at once; further ones wait."),
        field("parallelism", COUNT, "So many running tasks of one run at once."),
        field("fail_fast", Bool, "End the run as soon as a task has failed."),
        field("hooks", Shape::Object(&HOOKS), "What to run when the run ends."),
        field(
            "partitions",
            Mapping,
            "What its runs are divided into, such as {type: daily, start: 2024-01-01}.",
        ),
        field(
            "connections",
            Map(&Shape::Object(&CONNECTION)),
            "Connections by name, for `sql` tasks.",
        ),
        field(
            "pools",
            Map(&OneOf(&[COUNT, Shape::Object(&POOL)])),
            "Capacities of limits that tasks name.",
        ),
        required("tasks", Map(&Shape::Object(&TASK)), "Its tasks by name."),
    ],
};

static CONNECTION: Object = Object {
    name: "connection",
    doc: "a connection",
    one_of: &[],
    fields: &[
        required(
            "url",
            Text,
            "Where it leads: sqlite:warehouse.db counts from the folder of the workflow, sqlite:///data/warehouse.db is absolute (a template of `var`, `secret` and `params`).",
        ),
        field("options", Mapping, "What the driver understands besides."),
    ],
};

static POOL: Object = Object {
    name: "pool",
    doc: "a pool",
    one_of: &[],
    fields: &[
        required("capacity", Integer { min: 0, max: 1_000_000 }, "So much may be held at once."),
        field("strict", Bool, "A waiter that does not fit holds back those behind it."),
        field("description", Text, "What it protects."),
    ],
};

static DEFAULTS: Object = Object {
    name: "defaults",
    doc: "the tasks' defaults",
    one_of: &[],
    fields: &[
        field("retries", RETRIES, "Further attempts after a failure."),
        field("timeout", Duration, "Running time of one attempt."),
        field("total_timeout", Duration, "From the first start to the end, over all attempts."),
        field("limits", LIMITS, "Pools that tasks hold while they run."),
        field("priority", PRIORITY, "Greater is earlier."),
        field("connection", Name, "Connection of `sql` tasks."),
        field("python", Shape::Object(&INTERPRETER), "How to run `python` tasks."),
        field("shell", Text, "The shell of `shell` tasks; /bin/sh when absent."),
        field("env", Map(&Scalar), "Environment variables (templates)."),
        field("folder", Text, "Working folder (a template)."),
        field("user", Name, "User to run as."),
        field("umask", Text, "Umask, such as \"022\"."),
        field("memory", Size, "Memory limit."),
        field("cpu_time", Duration, "CPU time limit."),
        field("log_limit", Size, "Bytes of log kept."),
        field("output_limit", Size, "Bytes of output accepted."),
        field("grace", Duration, "From the polite signal to the forced end."),
    ],
};

static INTERPRETER: Object = Object {
    name: "interpreter",
    doc: "a Python interpreter",
    one_of: &[],
    fields: &[
        field("interpreter", Text, "Program to run; python3 when absent."),
        field("venv", Text, "Folder of a virtual environment whose interpreter to use."),
        field("path", List(&Text), "Folders to import modules from."),
        field(
            "requirements",
            OneOf(&[Text, List(&Text)]),
            "A requirements.txt or pyproject.toml, or packages: an environment is built of them, once.",
        ),
        field(
            "mode",
            Word(&["fork", "spawn", "reuse"]),
            "A copy of a warm process (fork, the default), a fresh interpreter, or a process that runs many tasks.",
        ),
    ],
};

const RETRIES: Shape = OneOf(&[Integer { min: 0, max: 1000 }, Shape::Object(&RETRY)]);
const LIMITS: Shape = OneOf(&[Name, List(&OneOf(&[Name, Map(&COUNT)])), Map(&COUNT)]);
const PRIORITY: Shape = Integer { min: -1_000_000, max: 1_000_000 };

static RETRY: Object = Object {
    name: "retries",
    doc: "the retries",
    one_of: &[],
    fields: &[
        required("limit", Integer { min: 0, max: 1000 }, "Further attempts after the first."),
        field("delay", Duration, "Wait before the second attempt; 1s when there is a backoff."),
        field("backoff", Word(&["fixed", "exponential"]), "How the delay grows."),
        field(
            "factor",
            Number { min: 1.0, max: 100.0 },
            "Growth of an exponential delay; 2 when absent.",
        ),
        field("max", Duration, "Longest delay."),
        field(
            "jitter",
            Number { min: 0.0, max: 1.0 },
            "Random addition, as a fraction of the delay.",
        ),
        field(
            "on",
            List(&OneOf(&[Word(RETRY_CAUSES), Integer { min: 0, max: 255 }])),
            "Retry only these causes or exit codes.",
        ),
    ],
};

static HOOKS: Object = Object {
    name: "hooks",
    doc: "the hooks",
    one_of: &[],
    fields: &[
        field("on_success", HOOK_LIST, "After success."),
        field("on_failure", HOOK_LIST, "After failure."),
        field("on_exit", HOOK_LIST, "After the end, however it ended."),
    ],
};

const HOOK_LIST: Shape = OneOf(&[Shape::Object(&HOOK), List(&Shape::Object(&HOOK))]);

pub(crate) static HOOK: Object = Object {
    name: "hook",
    doc: "a hook",
    one_of: HOOK_KINDS,
    fields: &[
        field("name", Name, "Its name."),
        field("noop", NOOP, "Does nothing."),
        field("shell", SHELL, "Runs a shell script."),
        field("python", PYTHON, "Calls a Python function."),
        field("sql", SQL, "Runs an SQL statement."),
        field("http", HTTP, "Sends an HTTP request."),
        field("workflow", WORKFLOW_CALL, "Starts a run of another workflow."),
        field("when", WHEN, "Run only if this expression is true."),
        only(&["python", "workflow"], "with", Mapping, "Arguments (templates)."),
        only(&["sql"], "connection", Name, "Connection to use."),
        only(&["sql"], "expect", Any, "What the first value of the last result must be."),
        only(PROCESSES, "env", Map(&Scalar), "Environment variables (templates)."),
        only(PROCESSES, "folder", Text, "Working folder (a template)."),
        field("must_succeed", Bool, "Its failure fails what it hangs on."),
    ],
};

static CHECK: Object = Object {
    name: "check",
    doc: "a check",
    one_of: CHECK_KINDS,
    fields: &[
        required("name", Name, "Its name."),
        field("shell", SHELL, "Holds if the script exits with 0."),
        field("python", PYTHON, "Holds unless the function raises an error or returns False."),
        field("sql", SQL, "Holds if the result is as expected (true when `expect` is absent)."),
        field("http", HTTP, "Holds if the answer is as expected."),
        field(
            "block",
            Bool,
            "Whether a failed check holds back the task's readers; true when absent.",
        ),
        only(&["python"], "with", Mapping, "Arguments (templates)."),
        only(&["sql"], "connection", Name, "Connection to use."),
        only(&["sql"], "expect", Any, "What the first value of the last result must be."),
        field("env", Map(&Scalar), "Environment variables (templates)."),
        field("folder", Text, "Working folder (a template)."),
        field("timeout", Duration, "Running time of one attempt."),
        field("retries", RETRIES, "Further attempts after a failure."),
    ],
};

const NOOP: Shape = OneOf(&[Bool, Null, Shape::Object(&EMPTY)]);
static EMPTY: Object = Object { name: "empty", doc: "nothing", one_of: &[], fields: &[] };

const SHELL: Shape = OneOf(&[Text, Shape::Object(&SHELL_OBJECT)]);
static SHELL_OBJECT: Object = Object {
    name: "shell",
    doc: "a shell script",
    one_of: &[],
    fields: &[
        required("command", Text, "The script; every `{{ }}` is quoted, `| raw` inserts text."),
        field("shell", Text, "The shell; /bin/sh when absent. It is called with -e."),
    ],
};

const PYTHON: Shape = OneOf(&[Text, Shape::Object(&PYTHON_OBJECT)]);
static PYTHON_OBJECT: Object = Object {
    name: "python",
    doc: "a Python call",
    one_of: &[],
    fields: &[
        field("function", Text, "`module.function`, or with `file` the function's name."),
        field("file", Text, "A Python file; without `function` it runs as a script."),
        field(
            "code",
            Text,
            "Python code (no template); `with` gives its variables, `result` its output.",
        ),
        field("interpreter", Text, "Program to run; python3 when absent."),
        field("venv", Text, "Folder of a virtual environment whose interpreter to use."),
        field("path", List(&Text), "Folders to import modules from."),
        field(
            "requirements",
            OneOf(&[Text, List(&Text)]),
            "A requirements.txt or pyproject.toml, or packages: an environment is built of them, once.",
        ),
        field(
            "mode",
            Word(&["fork", "spawn", "reuse"]),
            "A copy of a warm process (fork, the default), a fresh interpreter, or a process that runs many tasks.",
        ),
    ],
};

const SQL: Shape = OneOf(&[Text, Shape::Object(&SQL_OBJECT)]);
static SQL_OBJECT: Object = Object {
    name: "sql",
    doc: "an SQL statement",
    one_of: &[],
    fields: &[
        required("statement", Text, "The statement; every `{{ }}` is bound, `| raw` inserts text."),
        field("expect", Any, "What the first value of its last result must be."),
        field("connection", Name, "Connection to use."),
        field("max_rows", COUNT, "Most rows kept as the result."),
    ],
};

const HTTP: Shape = OneOf(&[Text, Shape::Object(&HTTP_OBJECT)]);
static HTTP_OBJECT: Object = Object {
    name: "http",
    doc: "an HTTP request",
    one_of: &[],
    fields: &[
        required("url", Text, "Address (a template)."),
        field(
            "method",
            Word(&["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"]),
            "GET when absent; POST with a body.",
        ),
        field("headers", Map(&Scalar), "Headers (templates)."),
        field("query", Map(&Scalar), "Parts of the query (templates)."),
        field("json", Any, "Body as JSON (templates in its texts)."),
        field("body", Text, "Body as text (a template)."),
        field(
            "expect",
            OneOf(&[STATUS, List(&STATUS)]),
            "Statuses that are a success; any 2xx when absent.",
        ),
        field("timeout", Duration, "How long the whole exchange may take; 60s when absent."),
    ],
};

const STATUS: Shape = Integer { min: 100, max: 599 };
const APPROVAL: Shape = OneOf(&[Bool, Null, Text, Shape::Object(&APPROVAL_OBJECT)]);
static APPROVAL_OBJECT: Object = Object {
    name: "approval",
    doc: "an approval",
    one_of: &[],
    fields: &[
        field("message", Text, "What to decide (a template)."),
        field("approvers", List(&Name), "Who may decide; anyone with the right when absent."),
        field("inputs", Mapping, "JSON Schema of values that are asked for."),
    ],
};

const WAIT: Shape = OneOf(&[Duration, Shape::Object(&WAIT_OBJECT)]);
static WAIT_OBJECT: Object = Object {
    name: "wait",
    doc: "a wait",
    one_of: &["for", "until", "file", "event", "asset", "http", "sql"],
    fields: &[
        field("for", Duration, "So long."),
        field("until", Text, "Until this time (a template)."),
        field("file", Text, "Until this file is there (a template)."),
        field("event", Name, "Until an event of this name is sent to the server."),
        field("asset", Text, "Until this asset has data (a template)."),
        field("http", HTTP, "Until this request is answered as expected."),
        field("sql", SQL, "Until this statement gives what is expected."),
        only(&["event"], "filter", Text, "A condition over the event."),
        only(&["asset"], "partition", Text, "Data of this partition (a template)."),
        only(&["asset"], "since", Text, "Data from this time on (a template)."),
        only(&["sql"], "connection", Name, "Connection to use."),
        only(&["sql"], "expect", Any, "What its first value must be; true when absent."),
        only(&["file", "http", "sql"], "every", Duration, "How often to look."),
    ],
};

const WORKFLOW_CALL: Shape = OneOf(&[Name, Shape::Object(&WORKFLOW_CALL_OBJECT)]);
static WORKFLOW_CALL_OBJECT: Object = Object {
    name: "workflow_call",
    doc: "a call of a workflow",
    one_of: &[],
    fields: &[
        required("name", Name, "Which workflow."),
        field("namespace", Name, "Its namespace; this one's when absent."),
        field("wait", Bool, "Wait for its end; true when absent."),
    ],
};

static GROUP: Object = Object {
    name: "group",
    doc: "a group",
    one_of: &[],
    fields: &[
        required("tasks", Map(&Shape::Object(&TASK)), "Its tasks by name."),
        field("parallelism", COUNT, "So many running tasks of it at once."),
        field("fail_fast", Bool, "End it as soon as a task of it has failed."),
    ],
};

const WHEN: Shape = OneOf(&[Text, Bool]);

const MAP: Shape = OneOf(&[List(&Any), Text, Shape::Object(&MAP_OBJECT)]);
static MAP_OBJECT: Object = Object {
    name: "map",
    doc: "a map",
    one_of: &["over", "range", "like"],
    fields: &[
        field("over", OneOf(&[List(&Any), Text]), "A list, or an expression that gives one."),
        field(
            "range",
            OneOf(&[Integer { min: 0, max: 1_000_000 }, Text]),
            "The numbers from 0 to below this.",
        ),
        field("like", Text, "The same items as this mapped task."),
        field("window", COUNT, "So many instances at once."),
        field(
            "zero",
            Word(&["skip", "empty"]),
            "What an empty list makes of the task: skipped, or succeeded with an empty result.",
        ),
        field("fail_fast", Bool, "End the others when one fails."),
    ],
};

static NEED: Object = Object {
    name: "need",
    doc: "a dependency",
    one_of: &[],
    fields: &[
        required("task", Text, "Which task or group."),
        field(
            "instances",
            Word(&["all", "aligned", "summary"]),
            "Which instances of a mapped task; all when absent.",
        ),
    ],
};

static CACHE: Object = Object {
    name: "cache",
    doc: "a cache",
    one_of: &[],
    fields: &[
        required("key", Text, "What the result depends on (a template)."),
        field("ttl", Duration, "How long a result stays good; for ever when absent."),
    ],
};

pub(crate) static TASK: Object = Object {
    name: "task",
    doc: "a task",
    one_of: KINDS,
    fields: &[
        field("noop", NOOP, "Does nothing."),
        field("shell", SHELL, "Runs a shell script."),
        field("python", PYTHON, "Calls a Python function."),
        field("sql", SQL, "Runs an SQL statement."),
        field("http", HTTP, "Sends an HTTP request."),
        field("approval", APPROVAL, "Waits until a person decides."),
        field("suspend", APPROVAL, "Waits until it is resumed."),
        field("wait", WAIT, "Waits without holding a worker."),
        field("workflow", WORKFLOW_CALL, "Runs another workflow."),
        field("group", Shape::Object(&GROUP), "Holds tasks."),
        field("description", Text, "What it is for."),
        field(
            "needs",
            OneOf(&[Text, List(&OneOf(&[Text, Shape::Object(&NEED)])), Shape::Object(&NEED)]),
            "Tasks that come before.",
        ),
        field("rule", Word(RULES), "What must have become of them; all_succeeded when absent."),
        field("when", WHEN, "Skip unless this expression is true."),
        field("map", MAP, "One instance for each item (`item`, `index`)."),
        only(&["python", "workflow"], "with", Mapping, "Arguments (templates)."),
        only(&["sql"], "connection", Name, "Connection to use."),
        only(&["sql"], "expect", Any, "What the first value of the last result must be."),
        field("retries", RETRIES, "Further attempts after a failure."),
        field("timeout", Duration, "Running time of one attempt."),
        field("total_timeout", Duration, "From the first start to the end, over all attempts."),
        field("limits", LIMITS, "Pools that it holds while it runs."),
        field("priority", PRIORITY, "Greater is earlier."),
        field("hooks", Shape::Object(&HOOKS), "What to run when it ends."),
        field("setup", Bool, "It prepares something that a teardown removes."),
        field(
            "teardown",
            OneOf(&[Text, List(&Text)]),
            "It removes what these setup tasks made, after all between has ended, however.",
        ),
        field("must_succeed", Bool, "The failure of this teardown fails the run."),
        field(
            "cache",
            Shape::Object(&CACHE),
            "Take the result of an earlier run with the same key.",
        ),
        field("checks", List(&Shape::Object(&CHECK)), "What must hold of its data."),
        field("produces", OneOf(&[Asset, List(&Asset)]), "Assets that it makes."),
        field("consumes", OneOf(&[Asset, List(&Asset)]), "Assets that it reads."),
        field("continue_on_failure", Bool, "Its failure does not fail the run."),
        only(PROCESSES, "env", Map(&Scalar), "Environment variables (templates)."),
        only(PROCESSES, "folder", Text, "Working folder (a template)."),
        only(PROCESSES, "user", Name, "User to run as."),
        only(PROCESSES, "umask", Text, "Umask, such as \"022\"."),
        only(PROCESSES, "memory", Size, "Memory limit."),
        only(PROCESSES, "cpu_time", Duration, "CPU time limit."),
        only(PROCESSES, "log_limit", Size, "Bytes of log kept."),
        only(PROCESSES, "output_limit", Size, "Bytes of output accepted."),
        only(PROCESSES, "grace", Duration, "From the polite signal to the forced end."),
        only(
            &["shell", "python"],
            "skip_exit_codes",
            List(&Integer { min: 1, max: 255 }),
            "Exit codes that mean skipped.",
        ),
        only(
            &["shell"],
            "capture",
            Bool,
            "Keep the last line of the output as `result`; true when absent.",
        ),
    ],
};
