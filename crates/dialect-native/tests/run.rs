//! Definitions run to their end: the real engine, this dialect, and bodies as real processes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod world;

use serde_json::{Value as Json, json};
use world::World;

fn states(world: &World) -> Vec<(String, &'static str)> {
    world.tasks().into_iter().map(|row| (world::label(&row), row.state.as_str())).collect()
}

fn expect(world: &World, expected: &[(&str, &str)]) {
    let all = states(world);
    for (name, state) in expected {
        let found = all.iter().find(|(n, _)| n == name);
        assert_eq!(
            found.map(|(_, s)| *s),
            Some(*state),
            "{name}\n{all:?}\n{}",
            world.messages().join("\n")
        );
    }
}

#[test]
fn values_travel_from_task_to_task() {
    let world = World::run(
        r#"
name: travel
params: {greeting: {type: string, default: hello}}
tasks:
  one: {shell: "echo {{ params.greeting }} world"}
  two: {python: {code: "result = {'n': len(text), 'text': text}"}, with: {text: "{{ tasks.one.result }}"}, needs: one}
  three: {shell: "echo {{ tasks.two.result.n }}-{{ tasks.one.result }} $KOBZA_TASK $KOBZA_ATTEMPT", needs: two}
  four: {shell: "echo '{\"a\": [1, 2]}' > $KOBZA_OUTPUT", needs: one}
  five: {shell: "echo {{ tasks.four.output.a }}", needs: [four]}
  rows: {shell: "echo '{\"rows\": [[7]], \"value\": 7}' > $KOBZA_OUTPUT"}
  six: {shell: "echo {{ tasks.rows.result[0][0] }}{{ tasks.rows.output.value }}", needs: [rows]}
"#,
        json!({}),
    );
    assert_eq!(world.state(), "succeeded", "{:?}", world.messages());
    assert_eq!(world.result("one"), json!("hello world"));
    assert_eq!(world.result("two"), json!({"n": 11, "text": "hello world"}));
    assert_eq!(world.result("three"), json!("11-hello world three 1"));
    assert_eq!(world.result("five"), json!("1 2"));
    assert_eq!(world.result("six"), json!("77"));
}

#[test]
fn hostile_parameters_stay_values() {
    for value in [
        "'; touch pwned; '",
        "$(touch pwned)",
        "`touch pwned`",
        "a\n touch pwned\nb",
        "\"; import os; os.system('touch pwned'); \"",
        "{{ 7 * 7 }}",
        "{% raw %}",
        "\\",
    ] {
        let world = World::run(
            r#"
name: hostile
params: {v: {type: string}}
env: {FROM_ENV: "{{ params.v }}"}
tasks:
  shell: {shell: "printf '%s' {{ params.v }} > got; printf '%s' \"$FROM_ENV\" > env"}
  quoted: {shell: "printf '%s' \"{{ params.v }}\" > quoted"}
  nested: {shell: "sh -c 'printf %s \"$1\"' x {{ params.v }} > nested"}
  python: {python: {code: "open('python', 'w').write(v)"}, with: {v: "{{ params.v }}"}}
"#,
            json!({ "v": value }),
        );
        assert_eq!(world.state(), "succeeded", "{value:?}: {:?}", world.messages());
        for file in ["got", "env", "quoted", "nested", "python"] {
            assert_eq!(world.file(file).as_deref(), Some(value), "{file}");
        }
        assert_eq!(world.file("pwned"), None, "{value:?} ran");
    }
}

#[test]
fn maps_expand_align_and_join() {
    let world = World::run(
        r#"
name: maps
tasks:
  list: {python: {code: "result = [3, 1, 2]"}}
  square: {python: {code: "result = n * n"}, with: {n: "{{ item }}"}, needs: list, map: "{{ tasks.list.result }}"}
  text: {shell: "echo {{ index }}:{{ item }}:{{ tasks.square.result }}", needs: [{task: square, instances: aligned}], map: {like: square}}
  join: {shell: "echo {{ tasks.text.result | join(',') }} {{ tasks.square.count }}", needs: [text, square]}
  range: {shell: "echo {{ item }}", map: {range: 2}}
  literal: {shell: "echo {{ item.a }}", map: [{a: x}, {a: "{{ run.trigger }}"}]}
  none: {noop: true, map: [], needs: join}
  after_none: {noop: true, needs: none}
  empty: {noop: true, map: {over: "{{ [] }}", zero: empty}}
  after_empty: {shell: "echo {{ tasks.empty.count }}", needs: empty}
"#,
        json!({}),
    );
    assert_eq!(world.state(), "succeeded", "{:?}", world.messages());
    assert_eq!(world.result("join"), json!("0:3:9,1:1:1,2:2:4 3"));
    assert_eq!(world.result("range[1]"), json!("1"));
    assert_eq!(world.result("literal[1]"), json!("manual"));
    assert_eq!(world.result("after_empty"), json!("0"));
    expect(&world, &[("none", "skipped"), ("after_none", "skipped"), ("empty", "succeeded")]);
}

#[test]
fn groups_are_prefixes_or_scopes() {
    let world = World::run(
        r#"
name: groups
params: {names: {type: array, default: [x, y]}}
tasks:
  before: {shell: "echo b"}
  plain:
    needs: before
    group:
      tasks:
        one: {shell: "echo {{ tasks.before.result }}1"}
        two: {shell: "echo {{ tasks.one.result }}2", needs: one}
  each:
    needs: plain
    map: "{{ params.names }}"
    group:
      tasks:
        one: {shell: "echo {{ item }}{{ index }}{{ tasks.plain.two.result }}"}
        two: {shell: "echo {{ tasks.one.result }}!", needs: one}
  after: {noop: true, needs: each}
"#,
        json!({}),
    );
    assert_eq!(world.state(), "succeeded", "{:?}", world.messages());
    assert_eq!(world.result("plain.two"), json!("b12"));
    let mut found: Vec<Json> = world.results("each.two");
    found.sort_by_key(ToString::to_string);
    assert_eq!(found, [json!("x0b12!"), json!("y1b12!")]);
    expect(&world, &[("after", "succeeded")]);
}

#[test]
fn when_skips_and_rules_decide() {
    let world = World::run(
        r#"
name: rules
params: {go: {type: boolean, default: false}}
tasks:
  good: {noop: true}
  bad: {shell: "exit 3"}
  off: {noop: true, when: params.go}
  all_succeeded: {noop: true, needs: [good, bad]}
  all_done: {noop: true, needs: [good, bad, off], rule: all_done}
  all_failed: {noop: true, needs: [bad], rule: all_failed}
  not_all_failed: {noop: true, needs: [bad, good], rule: all_failed}
  one_succeeded: {noop: true, needs: [good, bad], rule: one_succeeded}
  no_one_succeeded: {noop: true, needs: [bad, off], rule: one_succeeded}
  one_failed: {noop: true, needs: [good, bad], rule: one_failed}
  no_one_failed: {noop: true, needs: [good, off], rule: one_failed}
  one_done: {noop: true, needs: [off, bad], rule: one_done}
  none_done: {noop: true, needs: [off], rule: one_done}
  none_failed: {noop: true, needs: [good, off], rule: none_failed}
  not_none_failed: {noop: true, needs: [good, bad], rule: none_failed}
  min_one: {noop: true, needs: [good, off], rule: none_failed_min_one_success}
  not_min_one: {noop: true, needs: [off], rule: none_failed_min_one_success}
  none_skipped: {noop: true, needs: [good, bad], rule: none_skipped}
  some_skipped: {noop: true, needs: [good, off], rule: none_skipped}
  all_skipped: {noop: true, needs: [off], rule: all_skipped}
  not_all_skipped: {noop: true, needs: [off, good], rule: all_skipped}
  always: {noop: true, needs: [bad], rule: always}
"#,
        json!({}),
    );
    assert_eq!(world.state(), "failed");
    expect(
        &world,
        &[
            ("off", "skipped"),
            ("all_succeeded", "upstream_failed"),
            ("all_done", "succeeded"),
            ("all_failed", "succeeded"),
            ("not_all_failed", "skipped"),
            ("one_succeeded", "succeeded"),
            ("no_one_succeeded", "upstream_failed"),
            ("one_failed", "succeeded"),
            ("no_one_failed", "skipped"),
            ("one_done", "succeeded"),
            ("none_done", "skipped"),
            ("none_failed", "succeeded"),
            ("not_none_failed", "upstream_failed"),
            ("min_one", "succeeded"),
            ("not_min_one", "skipped"),
            ("none_skipped", "succeeded"),
            ("some_skipped", "skipped"),
            ("all_skipped", "succeeded"),
            ("not_all_skipped", "skipped"),
            ("always", "succeeded"),
        ],
    );
}

#[test]
fn teardowns_run_after_all_between_however_it_ended() {
    let source = r#"
name: teardown
params: {code: {type: integer, default: 0}, down: {type: integer, default: 0}}
tasks:
  up: {shell: "echo up >> order", setup: true}
  work: {shell: "echo work >> order; exit {{ params.code }}", needs: up}
  more: {shell: "echo more >> order", needs: work}
  down: {shell: "echo down >> order; exit {{ params.down }}", teardown: up}
"#;
    let world = World::run(source, json!({}));
    assert_eq!(world.state(), "succeeded");
    assert_eq!(world.file("order").unwrap(), "up\nwork\nmore\ndown\n");
    let world = World::run(source, json!({"code": 1}));
    assert_eq!(world.state(), "failed");
    assert_eq!(world.file("order").unwrap(), "up\nwork\ndown\n");
    let world = World::run(source, json!({"down": 1}));
    assert_eq!(world.state(), "succeeded", "a failed teardown fails no run");
    let world = World::run(
        &source.replace("teardown: up", "teardown: up, must_succeed: true"),
        json!({"down": 1}),
    );
    assert_eq!(world.state(), "failed", "unless it is asked to");
    let world = World::run(&source.replace("echo up >> order", "exit 1"), json!({}));
    expect(&world, &[("up", "failed"), ("work", "upstream_failed"), ("down", "upstream_failed")]);
}

#[test]
fn checks_block_or_warn() {
    let source = r#"
name: checks
tasks:
  make:
    shell: "echo 5"
    produces: t
    checks:
      - {name: hard, shell: "test 5 -gt 9", block: BLOCK}
      - {name: py, python: {code: "result = True"}}
  publish: {noop: true, needs: make}
"#;
    let world = World::run(&source.replace("BLOCK", "true"), json!({}));
    assert_eq!(world.state(), "failed");
    expect(
        &world,
        &[("make", "succeeded"), ("make.hard", "failed"), ("publish", "upstream_failed")],
    );
    let world = World::run(&source.replace("BLOCK", "false"), json!({}));
    assert_eq!(world.state(), "succeeded");
    expect(&world, &[("make.hard", "failed"), ("publish", "succeeded")]);
}

#[test]
fn a_python_check_that_returns_false_fails() {
    let world = World::run(
        "name: c\ntasks:\n  a: {noop: true, checks: [{name: x, python: {code: 'result = False'}}]}\n",
        json!({}),
    );
    assert_eq!(world.state(), "failed");
}

#[test]
fn retries_caches_hooks_and_exit_codes() {
    let world = World::run(
        r#"
name: more
tasks:
  flaky: {shell: "echo x >> tries; test $KOBZA_ATTEMPT -eq 3", retries: 3}
  skip: {shell: "exit 99", skip_exit_codes: [99]}
  bad: {shell: "exit 1", continue_on_failure: true, hooks: {on_failure: {shell: "echo {{ owner.name }} {{ owner.state }} >> hooks"}}}
  hit: {shell: "echo never", cache: {key: "k-{{ run.trigger }}", ttl: 1h}}
  miss: {shell: "echo made", cache: {key: other}}
  old: {shell: "echo made", cache: {key: old, ttl: 1s}}
hooks:
  on_exit:
    - {shell: "echo run {{ owner.state }} >> hooks"}
    - {name: not, shell: "echo no >> hooks", when: "owner.name == 'nobody'"}
"#,
        json!({}),
    );
    assert_eq!(world.file("tries").unwrap(), "x\nx\nx\n");
    expect(
        &world,
        &[("flaky", "succeeded"), ("skip", "skipped"), ("bad", "failed"), ("hit", "succeeded")],
    );
    assert_eq!(world.state(), "succeeded", "{:?}", world.messages());
    assert_eq!(world.result("hit"), json!("cached"));
    assert_eq!(world.result("miss"), json!("made"));
    assert_eq!(world.result("old"), json!("made"));
    let hooks = world.file("hooks").unwrap();
    assert!(hooks.contains("bad failed\n") && hooks.contains("run "), "{hooks}");
    assert!(!hooks.contains("no\n"), "{hooks}");
}

#[test]
fn what_cannot_be_rendered_fails_with_its_name() {
    let world = World::run(
        "name: x\ntasks:\n  a: {noop: true}\n  b: {shell: 'echo {{ tasks.a.result }}', needs: a}\n  c: {noop: true, when: 'tasks.a.result', needs: a}\n  d: {noop: true, map: '{{ 5 }}'}\n",
        json!({}),
    );
    let messages = world.messages().join("\n");
    assert!(messages.contains("shell: `tasks.a.result` is undefined"), "{messages}");
    assert!(messages.contains("map: expected a list, got a number"), "{messages}");
    expect(&world, &[("b", "failed"), ("c", "failed"), ("d", "failed")]);
}

#[test]
fn python_functions_modules_files_and_tracebacks() {
    let world = World::run_with(
        r#"
name: py
tasks:
  module: {python: etl.load, with: {day: "2024-02-29", n: 2}}
  file: {python: {file: etl.py, function: load}, with: {day: "2024-02-29", n: 3}}
  script: {python: {file: script.py}}
  coroutine: {python: etl.slow}
  fails: {python: etl.fails}
  missing: {python: etl.nothing}
"#,
        json!({}),
        &[
            (
                "etl.py",
                "import datetime\n\
                 def load(day: datetime.date, n):\n    return [day + datetime.timedelta(days=i) for i in range(n)]\n\
                 async def slow():\n    return {'a': (1, 2)}\n\
                 def fails():\n    raise ValueError('no such thing')\n",
            ),
            ("script.py", "import os\nopen('ran', 'w').write(__name__)\n"),
        ],
    );
    assert_eq!(world.result("module"), json!(["2024-02-29", "2024-03-01"]));
    assert_eq!(world.result("file"), json!(["2024-02-29", "2024-03-01", "2024-03-02"]));
    assert_eq!(world.result("coroutine"), json!({"a": [1, 2]}));
    assert_eq!(world.file("ran").unwrap(), "__main__");
    let log = world.log("fails");
    assert!(log.contains("raise ValueError") && log.contains("ValueError: no such thing"), "{log}");
    assert!(!log.contains("<string>"), "the driver's own frames are shown: {log}");
    assert!(world.log("missing").contains("no attribute 'nothing'"), "{}", world.log("missing"));
}

#[test]
fn sql_and_http_become_calls_on_the_standard_input() {
    let world = World::run(
        r#"
name: calls
params: {v: {type: string, default: "x'; drop table t; --"}}
connections:
  db: {url: "sqlite:data/x.db?mode={{ var.mode }}", options: {busy_timeout_s: 3}}
tasks:
  sql: {sql: "select '{{ params.v }}', {{ params.v }}", connection: db, expect: 1}
  server: {sql: "select 1", connection: warehouse}
  none: {sql: "select 1", connection: nowhere}
  http:
    http: {url: "http://127.0.0.1/{{ params.v | urlencode }}", headers: {Authorization: "Bearer {{ secret.token }}"}, json: {v: "{{ params.v }}", n: 1}, expect: 201, timeout: 5s}
  header: {http: {url: "http://127.0.0.1/", headers: {X: "a\nb"}}}
"#,
        json!({}),
    );
    let call = world.launched("sql");
    assert_eq!((call.program.as_str(), call.args.len()), ("@sql", 0));
    let spec: Json = serde_json::from_str(call.stdin.as_deref().unwrap()).unwrap();
    let url = format!("sqlite:{}/data/x.db?mode=rwc", world.folder().display());
    assert_eq!(
        spec,
        json!({
            "url": url, "statement": "select $1, $2", "expect": 1, "busy_timeout_s": 3,
            "params": ["x'; drop table t; --", "x'; drop table t; --"],
        })
    );
    let call = world.launched("server");
    assert!(call.secrets.contains(&"hunter22".to_owned()), "{:?}", call.secrets);
    assert!(world.messages().join("\n").contains("there is no connection `nowhere`"));
    let call = world.launched("http");
    assert!(call.secrets.contains(&"s3cret-token".to_owned()));
    let spec: Json = serde_json::from_str(call.stdin.as_deref().unwrap()).unwrap();
    assert_eq!(spec["headers"]["Authorization"], "Bearer s3cret-token");
    assert_eq!(spec["json"], json!({"v": "x'; drop table t; --", "n": 1}));
    assert_eq!((&spec["expect"], &spec["timeout_s"]), (&json!([201]), &json!(5.0)));
    assert_eq!(spec["method"], "POST");
    assert!(world.messages().join("\n").contains("headers.X: a header has one line"));
}

#[test]
fn process_settings_reach_the_executor() {
    let world = World::run(
        r#"
name: settings
defaults: {memory: 1GiB, env: {A: default, B: "{{ run.trigger }}"}, umask: "027"}
tasks:
  a: {shell: {command: "true", shell: bash}, env: {A: own}, cpu_time: 1500ms, log_limit: 1MB, output_limit: 2KiB, grace: 7s, timeout: 1m, skip_exit_codes: [3], capture: false, folder: "sub/{{ run.trigger }}"}
"#,
        json!({}),
    );
    let spec = world.launched("a");
    assert_eq!(spec.program, "bash");
    assert_eq!((spec.memory_bytes, spec.cpu_seconds), (Some(1 << 30), Some(2)));
    assert_eq!((spec.log_bytes, spec.output_bytes), (Some(1_000_000), Some(2048)));
    assert_eq!(
        (spec.grace_ms, spec.timeout_ms, spec.umask),
        (Some(7000), Some(60_000), Some(0o27))
    );
    assert_eq!(spec.skip_exit_codes, [3]);
    assert!(!spec.capture_result);
    assert!(spec.folder.as_deref().unwrap().ends_with("/sub/manual"));
    let value = |name: &str| spec.env.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    assert_eq!((value("A"), value("B")), (Some("own"), Some("manual")));
    assert_eq!(value("KOBZA_WORKFLOW"), Some("settings"));
    assert_eq!(value("KOBZA_TASK"), Some("a"));
    assert_eq!(value("KOBZA_INTERVAL_START"), Some("2024-01-01T00:00:00.000000Z"));
    assert_eq!(value("KOBZA_PARAMS"), Some("{}"));
}
