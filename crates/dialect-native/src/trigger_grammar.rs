//! What starts a workflow by itself: the fields of triggers.

use crate::grammar::{COUNT, field, only, required};
use crate::shape::{Object, Shape};

use Shape::{Asset, Bool, Duration, Integer, List, Mapping, Name, OneOf, Text, Word};

const KINDS: &[&str] =
    &["cron", "interval", "every", "at", "rrule", "assets", "webhook", "run", "file", "event"];
const CLOCKS: &[&str] = &["cron", "interval", "every", "at", "rrule"];
const EVENTS: &[&str] = &["assets", "webhook", "run", "file", "event"];

pub(crate) static TRIGGER: Object = Object {
    name: "trigger",
    doc: "a trigger",
    one_of: KINDS,
    fields: &[
        field("cron", Text, "Cron pattern of 5 fields (6 with seconds), or @daily and the like."),
        field("interval", Duration, "Every so long, counted from `anchor`."),
        field("every", Duration, "The same as `interval`."),
        field(
            "at",
            OneOf(&[Text, List(&Text)]),
            "At these times (RFC 3339, or local to `timezone`).",
        ),
        field("rrule", Text, "An iCalendar recurrence rule."),
        field(
            "assets",
            OneOf(&[Asset, List(&CONDITION), Shape::Object(&ASSETS)]),
            "When these assets were updated; a list means all of them.",
        ),
        field(
            "webhook",
            OneOf(&[Name, Shape::Object(&WEBHOOK)]),
            "When a signed HTTP request arrives.",
        ),
        field("run", OneOf(&[Name, Shape::Object(&AFTER)]), "When a run of another workflow ends."),
        field("file", OneOf(&[Text, Shape::Object(&FILES)]), "When files appear or change."),
        field("event", Name, "When an event of this name is sent."),
        field("name", Name, "Its name; made from its kind when absent."),
        field("description", Text, "What it is for."),
        only(CLOCKS, "timezone", Text, "Time zone of its local times; UTC when absent."),
        only(&["interval", "every"], "anchor", Text, "A time that intervals count from."),
        field("start", Text, "Nothing before this time counts."),
        field("end", Text, "Nothing from this time on counts."),
        only(
            CLOCKS,
            "catchup",
            OneOf(&[Bool, Word(&["none", "last", "all"]), Shape::Object(&CATCHUP)]),
            "Make up for missed slots: none, the last (the default), or all.",
        ),
        only(
            CLOCKS,
            "jitter",
            Duration,
            "Start up to so much later, each slot by the same amount.",
        ),
        field(
            "overlap",
            Word(&["allow", "skip", "queue", "queue_one", "queue_all", "cancel", "cancel_running"]),
            "What to do while its earlier run still runs; allow when absent.",
        ),
        field(
            "params",
            Mapping,
            "Parameters of the runs it starts (templates over `event`, `slot`, `interval`, …).",
        ),
        field(
            "filter",
            Text,
            "A condition over the same names; what does not meet it is left out.",
        ),
        only(
            EVENTS,
            "debounce",
            OneOf(&[Duration, Shape::Object(&DEBOUNCE)]),
            "Wait until so long nothing more has happened.",
        ),
        only(EVENTS, "batch", Shape::Object(&BATCH), "One run for several events."),
        field("paused", Bool, "It begins paused."),
    ],
};

static CONDITION: Shape = OneOf(&[Asset, Shape::Object(&ASSETS)]);

static ASSETS: Object = Object {
    name: "assets",
    doc: "a set of assets",
    one_of: &["all", "any"],
    fields: &[
        field("all", List(&CONDITION), "When all of them were updated since the last run."),
        field("any", List(&CONDITION), "When any of them was updated."),
        field("per_partition", Bool, "Judge each partition apart."),
        field(
            "updates",
            Word(&["all", "whole", "partitions"]),
            "Which updates count: all, those of no partition, those of partitions; all when absent.",
        ),
        field(
            "max_active",
            Integer { min: 1, max: 1_000_000 },
            "How many of its runs may be unfinished; what is updated meanwhile is gathered for one.",
        ),
    ],
};

static WEBHOOK: Object = Object {
    name: "webhook",
    doc: "a webhook",
    one_of: &[],
    fields: &[
        required("path", Name, "The last part of its address."),
        field("secret", Name, "Name of the secret that requests are signed with."),
        field("methods", List(&Text), "Methods that it takes; POST when absent."),
        field(
            "scheme",
            Word(&["standard", "github", "slack", "gitlab"]),
            "How they are signed; standard when absent.",
        ),
    ],
};

static AFTER: Object = Object {
    name: "run",
    doc: "the end of a run",
    one_of: &[],
    fields: &[
        required("workflow", Name, "Which workflow."),
        field(
            "states",
            List(&Word(&["succeeded", "failed", "cancelled"])),
            "Which ends count; succeeded when absent.",
        ),
    ],
};

static FILES: Object = Object {
    name: "file",
    doc: "files to watch",
    one_of: &[],
    fields: &[
        required("path", Text, "An absolute path; its last part may have wildcards."),
        field("settle", Duration, "A file counts when it has not changed for so long."),
        field("every", Duration, "How often the folder is looked at."),
    ],
};

static CATCHUP: Object = Object {
    name: "catchup",
    doc: "a catch-up",
    one_of: &["limit", "grace"],
    fields: &[
        field("limit", Integer { min: 1, max: 100_000 }, "At most the last so many."),
        field("grace", Duration, "None that is later than this."),
    ],
};

static DEBOUNCE: Object = Object {
    name: "debounce",
    doc: "a debounce",
    one_of: &[],
    fields: &[
        required("quiet", Duration, "Wait until so long nothing more has happened."),
        field("max", Duration, "But never longer than this."),
    ],
};

static BATCH: Object = Object {
    name: "batch",
    doc: "a batch of events",
    one_of: &[],
    fields: &[
        field("size", COUNT, "So many events make a run."),
        required("within", Duration, "A run starts after so long with fewer events."),
    ],
};
