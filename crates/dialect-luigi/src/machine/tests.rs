use kobza_engine::{Machine as _, MachineOutput, MachineRequest};
use kobza_model::{Cause, EngineTime, Json, MachineRow, Now, RunId, TaskState, Timestamp};
use serde_json::json;

use super::{LuigiFactory, LuigiMachine};
use crate::config::LuigiConfig;
use kobza_engine::MachineFactory as _;

struct Trial {
    machine: LuigiMachine,
    seconds: i64,
    rows: std::collections::BTreeMap<Vec<u8>, Vec<u8>>,
    observed: Vec<(String, TaskState, Cause, Option<String>)>,
    forgotten: Vec<String>,
}

fn run() -> RunId {
    RunId(uuid::Uuid::from_u128(7))
}

impl Trial {
    fn new() -> Self {
        let config = LuigiConfig { stable_done_cooldown_secs: 0.0, ..LuigiConfig::default() };
        let machine = LuigiMachine::new(run(), config);
        Self {
            machine,
            seconds: 1000,
            rows: Default::default(),
            observed: Vec::new(),
            forgotten: Vec::new(),
        }
    }

    fn try_call(&mut self, method: &str, arguments: Json) -> Result<Json, String> {
        self.seconds += 1;
        let at = self.seconds * 1_000_000;
        let now = Now { wall: Timestamp(at), engine: EngineTime(at) };
        let mut out = MachineOutput::default();
        let reply =
            self.machine.call(MachineRequest { now, method, arguments: &arguments }, &mut out);
        for (key, value) in out.rows {
            match value {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
        self.observed.extend(out.observed);
        self.forgotten.extend(out.forgotten);
        reply
    }

    fn call(&mut self, method: &str, arguments: Json) -> Json {
        self.try_call(method, arguments).unwrap()
    }

    fn add(&mut self, worker: &str, id: &str, deps: &[&str]) {
        self.call(
            "add_task",
            json!({"worker": worker, "task_id": id, "family": "F", "deps": deps}),
        );
    }

    fn set(&mut self, worker: &str, id: &str, status: &str) {
        self.call(
            "add_task",
            json!({"worker": worker, "task_id": id, "family": "F",
            "status": status, "runnable": null}),
        );
    }

    fn work(&mut self, worker: &str) -> Option<String> {
        let reply = self.call("get_work", json!({"worker": worker, "host": "h"}));
        reply["task_id"].as_str().map(str::to_owned)
    }

    fn pending(&mut self, worker: &str) -> Json {
        self.call("count_pending", json!({"worker": worker}))["n_pending_tasks"].clone()
    }

    fn rows(&self) -> Vec<MachineRow> {
        let row = |(key, value): (&Vec<u8>, &Vec<u8>)| MachineRow {
            run: run(),
            key: key.clone(),
            value: Some(value.clone()),
        };
        self.rows.iter().map(row).collect()
    }
}

#[test]
fn dependencies_come_first() {
    let mut trial = Trial::new();
    trial.add("w", "top", &["left", "right"]);
    trial.add("w", "left", &[]);
    trial.add("w", "right", &["left"]);
    for id in ["left", "right", "top"] {
        assert_eq!(trial.work("w").as_deref(), Some(id));
        assert_eq!(trial.work("w"), None);
        trial.set("w", id, "DONE");
    }
    let states: Vec<TaskState> = trial.observed.iter().map(|o| o.1).collect();
    use TaskState::{Pending, Running, Succeeded};
    assert_eq!(states[..3], [Pending; 3]);
    assert_eq!(states[3..], [Running, Succeeded, Running, Succeeded, Running, Succeeded]);
}

#[test]
fn what_waits_for_a_disabled_task_is_not_counted_cycles_included() {
    let mut trial = Trial::new();
    trial.add("w", "bad", &[]);
    trial.add("w", "a", &["b", "bad"]);
    trial.add("w", "b", &["a"]);
    trial.add("w", "c", &["b"]);
    assert_eq!(trial.pending("w"), 4);
    trial.set("w", "bad", "DISABLED");
    assert_eq!(trial.pending("w"), 0);
    trial.set("w", "bad", "PENDING");
    assert_eq!(trial.pending("w"), 4);
    trial.set("w", "a", "DISABLED");
    assert_eq!(trial.pending("w"), 1, "only `bad`");
    trial.set("w", "a", "PENDING");
    assert_eq!(trial.pending("w"), 4, "a cycle does not hold itself back");
    trial.set("w", "bad", "DISABLED");
    trial.call("add_task", json!({"worker": "w", "task_id": "a", "family": "F", "deps": ["b"]}));
    assert_eq!(trial.pending("w"), 3, "`a` no longer needs it");
}

#[test]
fn a_slot_is_kept_for_a_greater_task_of_another_worker() {
    let mut trial = Trial::new();
    let task = |id: &str, worker: &str, priority: i32| {
        json!({"worker": worker, "task_id": id, "family": "F", "priority": priority,
            "resources": {"db": 1}})
    };
    trial.call("update_resources", json!({"db": 1}));
    trial.call("get_work", json!({"worker": "other", "host": "h"}));
    trial.call("add_task", task("small", "me", 1));
    trial.call("add_task", task("great", "other", 9));
    assert_eq!(trial.work("me"), None, "the resource is for `great`");
    trial.seconds += 100;
    assert_eq!(trial.work("me").as_deref(), Some("small"), "`other` is not there any more");
}

#[test]
fn a_restart_loses_nothing() {
    let mut trial = Trial::new();
    trial.call("update_resource", json!({"resource": "db", "amount": 3}));
    trial.add("w", "top", &["low"]);
    trial.add("w", "low", &[]);
    trial.add("gone", "low", &[]);
    assert_eq!(trial.work("w").as_deref(), Some("low"));
    let before = trial.call("task_list", json!({}));
    let settings = serde_json::to_value(LuigiConfig::default()).unwrap();
    let mut machine = LuigiFactory.restore(run(), &settings, trial.rows());
    trial.seconds += 3600;
    let now = Timestamp(trial.seconds * 1_000_000);
    let mut call = |method: &str, arguments: Json| {
        let now = Now { wall: now, engine: EngineTime(0) };
        let mut out = MachineOutput::default();
        let request = MachineRequest { now, method, arguments: &arguments };
        machine.call(request, &mut out).unwrap()
    };
    assert_eq!(call("task_list", json!({})), before, "an hour later, nobody counts as gone yet");
    assert_eq!(call("resource_list", json!({}))[0]["num_total"], 3);
    assert_eq!(call("worker_list", json!({})).as_array().map(Vec::len), Some(2));
    let done = json!({"worker": "w", "task_id": "low", "status": "DONE", "runnable": null});
    call("add_task", done);
    assert_eq!(call("get_work", json!({"worker": "w", "host": "h"}))["task_id"], "top");
}

#[test]
fn a_broken_row_costs_no_other() {
    let mut trial = Trial::new();
    trial.add("w", "a", &[]);
    trial.add("w", "b", &[]);
    let first = trial.rows.keys().find(|key| key[0] == b's').cloned().unwrap();
    trial.rows.insert(first, vec![255; 3]);
    trial.rows.insert(b"?odd".to_vec(), vec![1]);
    let mut machine = LuigiFactory.restore(run(), &Json::Null, trial.rows());
    let request =
        MachineRequest { now: Now::default(), method: "task_list", arguments: &json!({}) };
    let reply = machine.call(request, &mut MachineOutput::default()).unwrap();
    assert_eq!(reply.as_object().map(|o| o.keys().cloned().collect()), Some(vec!["b".to_owned()]));
}

#[test]
fn a_lost_worker_fails_its_task_and_the_run_shows_it() {
    let mut trial = Trial::new();
    trial.add("w", "a", &[]);
    trial.work("w");
    trial.seconds += 61;
    trial.call("$tick", Json::Null);
    let last = trial.observed.last().unwrap();
    assert_eq!((last.1, last.2), (TaskState::Failed, Cause::Lost));
    trial.seconds += 901;
    trial.call("$tick", Json::Null);
    trial.call("$tick", Json::Null);
    assert!(trial.rows.keys().all(|key| key[0] != b'd'), "nobody wanted it: its rows are gone");
    let history = trial.call("$history", json!({"by": "task_id", "value": "a"}));
    assert_eq!(history["tasks"][0]["events"][0]["event_name"], "FAILED");
}

#[test]
fn long_lists_come_in_pieces() {
    let mut trial = Trial::new();
    for i in 0..1500 {
        trial.add("w", &format!("F_{i}"), &[]);
    }
    trial.add("w", "F_b", &["F_0"]);
    for i in 0..1500 {
        trial.add("w", &format!("F_c{i}"), &["F_b"]);
    }
    trial.set("w", "F_0", "FAILED");
    let failed = "{\"status\":\"PENDING\",\"upstream_status\":\"UPSTREAM_FAILED\"}";
    for (method, data) in [
        ("task_list", "{}"),
        ("task_list", failed),
        ("graph", ""),
        ("task_search", "{\"task_str\":\"F\"}"),
    ] {
        let whole = trial.call(method, serde_json::from_str(data).unwrap_or(Json::Null));
        let mut text = String::new();
        let mut arguments = json!({"method": method, "data": data});
        let mut pieces = 0;
        loop {
            let piece = trial.call("$read", arguments);
            text.push_str(piece["text"].as_str().unwrap());
            pieces += 1;
            if piece["session"].is_null() {
                break;
            }
            arguments = json!({"session": piece["session"]});
        }
        assert!(pieces > 3);
        assert!(whole.as_object().unwrap().len() >= if method == "task_search" { 2 } else { 1500 });
        assert_eq!(serde_json::from_str::<Json>(&text).unwrap(), whole, "{method}");
    }
}

#[test]
fn many_tasks_are_pruned_a_few_at_a_time() {
    let mut trial = Trial::new();
    for i in 0..1000 {
        trial.add("w", &format!("F_{i}"), &[]);
        trial.set("w", &format!("F_{i}"), "DONE");
    }
    trial.add("w", "open", &[]);
    trial.seconds += 61;
    for _ in 0..5 {
        trial.call("$tick", Json::Null);
    }
    trial.seconds += 601;
    trial.call("$tick", Json::Null);
    assert_eq!(trial.forgotten.len(), 256);
    assert!(trial.machine.prune_again);
    // What came back meanwhile is another task under the old name, and is not forgotten.
    trial.add("v", "F_900", &[]);
    for _ in 0..5 {
        trial.call("$tick", Json::Null);
    }
    assert!(!trial.machine.prune_again);
    assert_eq!(trial.forgotten.len(), 1000);
    assert!(!trial.forgotten.contains(&"F_900".to_owned()));
    assert!(trial.observed.contains(&("open".into(), TaskState::Removed, Cause::Observed, None)));
    assert!(trial.machine.knows("F_900") && !trial.machine.knows("F_901"));
    assert_eq!(trial.call("task_list", Json::Null).as_object().unwrap().len(), 1);
}

#[test]
fn nothing_odd_breaks_it() {
    let mut trial = Trial::new();
    let odd = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1e300),
        json!("x"),
        json!([]),
        json!({}),
        json!([["a", 1], ["b"]]),
        json!({"a": {"b": []}}),
        json!([1, null, "y"]),
    ];
    let names = [
        "task_id",
        "worker",
        "status",
        "runnable",
        "deps",
        "new_deps",
        "expl",
        "resources",
        "priority",
        "family",
        "module",
        "params",
        "param_visibilities",
        "assistant",
        "batch_id",
        "batchable",
        "retry_policy_dict",
        "current_tasks",
        "info",
        "task_family",
        "batched_args",
        "max_batch_size",
        "resource",
        "amount",
        "task_str",
        "search",
        "limit",
        "message_id",
        "decrease_resources",
        "max_shown_tasks",
        "session",
        "method",
        "data",
        "before",
    ];
    let methods = [
        "add_task",
        "get_work",
        "ping",
        "count_pending",
        "add_worker",
        "add_task_batcher",
        "task_list",
        "graph",
        "dep_graph",
        "inverse_dep_graph",
        "task_search",
        "worker_list",
        "resource_list",
        "decrease_running_task_resources",
        "send_scheduler_message",
        "add_scheduler_message_response",
        "get_scheduler_message_response",
        "update_resources",
        "update_resource",
        "re_enable_task",
        "retry",
        "retry_all",
        "mark_as_done",
        "disable_worker",
        "$read",
        "$history",
        "$configure",
        "prune",
    ];
    // A fixed walk through the combinations; what matters is that each call answers something.
    let mut state = 1_usize;
    let mut draw = |n: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    let mut answered = 0;
    for _ in 0..20_000 {
        let (worker, task) = (["w", "v"][draw(2)], ["a", "b", "c"][draw(3)]);
        let mut arguments = json!({"worker": worker, "task_id": task, "resource": "r",
            "message_id": "m", "task_family": "f"});
        for _ in 0..draw(6) {
            arguments[names[draw(names.len())]] = odd[draw(odd.len())].clone();
        }
        answered += usize::from(trial.try_call(methods[draw(methods.len())], arguments).is_ok());
    }
    assert!(answered > 10_000, "{answered}");
    let settings = serde_json::to_value(LuigiConfig::default()).unwrap();
    LuigiFactory.restore(run(), &settings, trial.rows());
}
