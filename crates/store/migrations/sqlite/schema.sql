-- The one shard that this file holds: the fence, and the numbering of batches and events.
CREATE TABLE shard (
    shard INTEGER PRIMARY KEY CHECK (shard = 0),
    term INTEGER NOT NULL,
    owner TEXT,
    batch INTEGER NOT NULL,
    next_event INTEGER NOT NULL,
    engine_time INTEGER NOT NULL,
    committed_at INTEGER NOT NULL
) STRICT;
INSERT OR IGNORE INTO shard VALUES (0, 0, NULL, 0, 1, 0, 0);

-- Words that repeat in a million rows: dialects, versions, triggers.
CREATE TABLE word (
    word_no INTEGER PRIMARY KEY,
    word TEXT NOT NULL UNIQUE
) STRICT;

-- A name that runs belong to. version is null where nothing is defined (any more).
CREATE TABLE workflow (
    workflow_no INTEGER PRIMARY KEY,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT,
    dialect TEXT,
    description TEXT,
    tags TEXT,
    paused INTEGER NOT NULL DEFAULT 0,
    updated_at INTEGER NOT NULL DEFAULT 0,
    UNIQUE (namespace, name)
) STRICT;

CREATE TABLE workflow_version (
    workflow_no INTEGER NOT NULL,
    version TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    body BLOB NOT NULL,
    source BLOB,
    PRIMARY KEY (workflow_no, version)
) STRICT;

CREATE TABLE run (
    run_no INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    workflow_no INTEGER NOT NULL,
    version INTEGER NOT NULL,
    dialect INTEGER NOT NULL,
    trigger INTEGER NOT NULL,
    state INTEGER NOT NULL,
    cause INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    ended_at INTEGER,
    key TEXT,
    interval_start INTEGER,
    interval_end INTEGER,
    partition TEXT,
    parent_run BLOB,
    parent_task INTEGER,
    counts BLOB NOT NULL,
    labels TEXT,
    params TEXT,
    more TEXT
) STRICT;
CREATE INDEX run_by_created ON run (created_at);
CREATE INDEX run_by_workflow ON run (workflow_no, state, created_at);
CREATE INDEX run_active ON run (run_no) WHERE state < 4;
CREATE UNIQUE INDEX run_by_key ON run (workflow_no, key) WHERE key IS NOT NULL;
CREATE INDEX run_by_parent ON run (parent_run, parent_task)
    WHERE parent_run IS NOT NULL;

-- How many runs of a workflow are in a state, kept with every commit.
CREATE TABLE run_total (
    workflow_no INTEGER NOT NULL,
    state INTEGER NOT NULL,
    runs INTEGER NOT NULL,
    PRIMARY KEY (workflow_no, state)
) STRICT, WITHOUT ROWID;

CREATE TABLE run_label (
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    run_no INTEGER NOT NULL,
    PRIMARY KEY (key, value, created_at, run_no)
) STRICT, WITHOUT ROWID;

-- flags: 1 summary, 2 confirmed. more: JSON of what most tasks have not.
CREATE TABLE task (
    run_no INTEGER NOT NULL,
    task_no INTEGER NOT NULL,
    scope INTEGER NOT NULL,
    node INTEGER,
    template INTEGER NOT NULL,
    name TEXT NOT NULL,
    idx INTEGER,
    flags INTEGER NOT NULL,
    parent INTEGER,
    hook INTEGER,
    state INTEGER NOT NULL,
    cause INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    launch INTEGER NOT NULL,
    exit_code INTEGER,
    priority INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    ready_at INTEGER,
    started_at INTEGER,
    ended_at INTEGER,
    first_started INTEGER,
    due INTEGER,
    child INTEGER,
    more TEXT,
    PRIMARY KEY (run_no, task_no)
) STRICT, WITHOUT ROWID;

-- Finished attempts that a newer one replaced, whole, as JSON.
CREATE TABLE attempt (
    run_no INTEGER NOT NULL,
    task_no INTEGER NOT NULL,
    nth INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (run_no, task_no, nth)
) STRICT, WITHOUT ROWID;

CREATE TABLE scope (
    run_no INTEGER NOT NULL,
    scope INTEGER NOT NULL,
    template INTEGER NOT NULL,
    owner INTEGER,
    attempt INTEGER NOT NULL,
    finished INTEGER NOT NULL,
    PRIMARY KEY (run_no, scope)
) STRICT, WITHOUT ROWID;

CREATE TABLE expansion (
    run_no INTEGER NOT NULL,
    scope INTEGER NOT NULL,
    node INTEGER NOT NULL,
    length INTEGER NOT NULL,
    made INTEGER NOT NULL,
    PRIMARY KEY (run_no, scope, node)
) STRICT, WITHOUT ROWID;

CREATE TABLE output (
    run_no INTEGER NOT NULL,
    task_no INTEGER NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (run_no, task_no, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE machine (
    run_no INTEGER NOT NULL,
    key BLOB NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (run_no, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE task_limit (
    name TEXT PRIMARY KEY,
    capacity INTEGER NOT NULL,
    strict INTEGER NOT NULL,
    description TEXT
) STRICT, WITHOUT ROWID;

-- All events of one batch, packed. The first byte of the body names the packing.
CREATE TABLE event_batch (
    first_seq INTEGER PRIMARY KEY,
    count INTEGER NOT NULL,
    at INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;

-- Which batches hold events of a run.
CREATE TABLE event_of_run (
    run_no INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    PRIMARY KEY (run_no, first_seq)
) STRICT, WITHOUT ROWID;

-- Small keyed things of other crates: JSON.
CREATE TABLE object (
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (kind, namespace, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE asset (
    asset_no INTEGER PRIMARY KEY,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    materialized_seq INTEGER,
    materialized_at INTEGER,
    materializations INTEGER NOT NULL DEFAULT 0,
    UNIQUE (namespace, name)
) STRICT;

-- seq is the event's number. The run may be gone: an asset's history outlives its runs.
CREATE TABLE materialization (
    seq INTEGER PRIMARY KEY,
    asset_no INTEGER NOT NULL,
    partition TEXT,
    at INTEGER NOT NULL,
    run BLOB,
    task_no INTEGER,
    metadata TEXT NOT NULL
) STRICT;
CREATE INDEX materialization_by_asset ON materialization (asset_no, seq);
CREATE INDEX materialization_by_partition
    ON materialization (asset_no, partition, seq) WHERE partition IS NOT NULL;
CREATE INDEX materialization_by_time ON materialization (at);

-- The newest materialization of each partition.
CREATE TABLE asset_partition (
    asset_no INTEGER NOT NULL,
    partition TEXT NOT NULL,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    run BLOB,
    materializations INTEGER NOT NULL,
    PRIMARY KEY (asset_no, partition)
) STRICT, WITHOUT ROWID;

CREATE TABLE asset_check (
    seq INTEGER PRIMARY KEY,
    asset_no INTEGER NOT NULL,
    name TEXT NOT NULL,
    passed INTEGER NOT NULL,
    blocking INTEGER NOT NULL,
    at INTEGER NOT NULL,
    run BLOB,
    task_no INTEGER,
    detail TEXT NOT NULL
) STRICT;
CREATE INDEX asset_check_by_asset ON asset_check (asset_no, name, seq);
CREATE INDEX asset_check_by_time ON asset_check (at);

-- How many runs ended in an hour (of the epoch, UTC), by namespace (a word) and state; kept with
-- every commit.
CREATE TABLE run_hour (
    namespace INTEGER NOT NULL,
    hour INTEGER NOT NULL,
    state INTEGER NOT NULL,
    runs INTEGER NOT NULL,
    PRIMARY KEY (namespace, hour, state)
) STRICT, WITHOUT ROWID;
