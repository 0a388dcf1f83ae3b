//! Open runs: a small machine hands out work, as Luigi's scheduler does.

use std::collections::BTreeMap;
use std::sync::Arc;

use kobza_engine::{
    Command, Engine, EngineOptions, Machine, MachineCall, MachineFactory, MachineOutput,
    MachineRequest, NewTask,
};
use kobza_model::*;
use serde_json::json;

use crate::harness::*;

/// A claim that is not renewed for so long is given to another worker.
const LEASE_MS: u64 = 10_000;

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Item {
    state: TaskState,
    priority: i32,
    needs: Vec<String>,
    slots: u32,
    /// Items of one family are handed out together.
    family: Option<String>,
    until: i64,
}

struct Scheduler {
    capacity: u32,
    items: BTreeMap<String, Item>,
}

impl Scheduler {
    fn put(&self, name: &str, out: &mut MachineOutput) {
        let value = serde_json::to_vec(&self.items[name]).unwrap();
        out.rows.push((name.as_bytes().to_vec(), Some(value)));
    }

    fn moved(&mut self, name: &str, state: TaskState, until: i64, out: &mut MachineOutput) {
        let Some(item) = self.items.get_mut(name) else { return };
        (item.state, item.until) = (state, until);
        self.put(name, out);
        out.observed.push((name.to_owned(), state, Cause::Observed, None));
    }

    /// Greatest priority first; what does not fit reserves its slots, so that nothing smaller
    /// behind it can starve it.
    fn pick(&self) -> Option<Vec<String>> {
        let used: u32 =
            self.items.values().filter(|i| i.state == TaskState::Running).map(|i| i.slots).sum();
        let mut free = self.capacity.saturating_sub(used);
        let ready = |item: &Item| {
            item.state == TaskState::Pending
                && item
                    .needs
                    .iter()
                    .all(|n| self.items.get(n).is_some_and(|i| i.state == TaskState::Succeeded))
        };
        let mut open: Vec<_> = self.items.iter().filter(|(_, i)| ready(i)).collect();
        open.sort_by_key(|(name, i)| (std::cmp::Reverse(i.priority), (*name).clone()));
        for (name, item) in &open {
            if item.slots > free {
                free = 0;
                continue;
            }
            let mut batch = vec![(*name).clone()];
            if item.family.is_some() {
                let same = open.iter().filter(|(n, i)| n != name && i.family == item.family);
                batch.extend(same.map(|(n, _)| (*n).clone()));
            }
            return Some(batch);
        }
        None
    }
}

impl Machine for Scheduler {
    fn call(
        &mut self,
        request: MachineRequest<'_>,
        out: &mut MachineOutput,
    ) -> Result<Json, String> {
        let name = request.arguments["name"].as_str().unwrap_or_default().to_owned();
        let now = request.now.engine;
        match request.method {
            "add" => {
                let item: Item = serde_json::from_value(json!({
                    "state": "pending",
                    "priority": request.arguments["priority"].as_i64().unwrap_or(0),
                    "needs": request.arguments["needs"].as_array().cloned().unwrap_or_default(),
                    "slots": request.arguments["slots"].as_u64().unwrap_or(1),
                    "family": request.arguments["family"],
                    "until": 0,
                }))
                .map_err(|e| e.to_string())?;
                out.tasks.push(NewTask {
                    name: name.clone(),
                    upstream: item.needs.clone(),
                    state: TaskState::Pending,
                    priority: item.priority,
                    inputs: Json::Null,
                    extra: Json::Null,
                });
                self.items.insert(name.clone(), item);
                self.put(&name, out);
                Ok(Json::Null)
            }
            "get_work" => {
                let Some(batch) = self.pick() else { return Ok(Json::Null) };
                for name in &batch {
                    self.moved(name, TaskState::Running, now.after_millis(LEASE_MS).0, out);
                }
                Ok(json!(batch))
            }
            "done" => {
                let known = self.items.get(&name).map(|i| i.state);
                if known != Some(TaskState::Running) {
                    return Err(format!("{name} is not claimed"));
                }
                self.moved(&name, TaskState::Succeeded, 0, out);
                if self.items.values().all(|i| i.state == TaskState::Succeeded) {
                    out.close = Some(Outcome::Succeeded);
                }
                Ok(Json::Null)
            }
            "forget" => {
                self.items.remove(&name);
                out.rows.push((name.as_bytes().to_vec(), None));
                out.forgotten.push(name);
                Ok(Json::Null)
            }
            "$tick" => {
                let late: Vec<String> = self
                    .items
                    .iter()
                    .filter(|(_, i)| i.state == TaskState::Running && i.until <= now.0)
                    .map(|(n, _)| n.clone())
                    .collect();
                for name in late {
                    self.moved(&name, TaskState::Pending, 0, out);
                }
                Ok(Json::Null)
            }
            other => Err(format!("no method {other}")),
        }
    }

    fn knows(&self, task: &str) -> bool {
        self.items.contains_key(task)
    }

    fn next_tick(&self) -> Option<EngineTime> {
        let running = self.items.values().filter(|i| i.state == TaskState::Running);
        running.map(|i| EngineTime(i.until)).min()
    }
}

struct Factory;

impl MachineFactory for Factory {
    fn restore(&self, _run: RunId, settings: &Json, rows: Vec<MachineRow>) -> Box<dyn Machine> {
        let items = rows.into_iter().filter_map(|row| {
            let name = String::from_utf8(row.key).unwrap();
            Some((name, serde_json::from_slice(&row.value?).unwrap()))
        });
        let capacity = settings["slots"].as_u64().unwrap_or(2) as u32;
        Box::new(Scheduler { capacity, items: items.collect() })
    }
}

fn open_workflow() -> Workflow {
    let mut definition = workflow(vec![], vec![]);
    definition.open = true;
    definition
}

fn open_bench() -> Bench {
    let mut bench = Bench::new(workflow(vec![node("idle")], vec![]));
    bench.go();
    bench.engine.register_machine("test", Arc::new(Factory));
    bench.start(open_workflow(), 2);
    bench
}

fn call(bench: &mut Bench, method: &str, arguments: Json) -> Result<Json, String> {
    let request = MachineCall { method: method.to_owned(), arguments };
    let reply = bench
        .engine
        .apply(Command::Machine { run: bench.run, request }, bench.now)
        .map_err(|refusal| refusal.to_string())?;
    bench.settle();
    match reply {
        kobza_engine::Reply::Machine(answer) => Ok(answer),
        other => panic!("{other:?}"),
    }
}

fn work(bench: &mut Bench) -> Json {
    call(bench, "get_work", Json::Null).unwrap()
}

fn add(bench: &mut Bench, arguments: Json) {
    call(bench, "add", arguments).unwrap();
}

#[test]
pub(crate) fn work_is_claimed_by_priority_within_resources() {
    let mut bench = open_bench();
    add(&mut bench, json!({"name": "small", "priority": 1}));
    add(&mut bench, json!({"name": "large", "priority": 5, "slots": 2}));
    add(&mut bench, json!({"name": "first", "priority": 9}));
    add(&mut bench, json!({"name": "after", "priority": 99, "needs": ["first"]}));
    assert_eq!(work(&mut bench), json!(["first"]));
    // `large` does not fit: the slot that is left is kept for it.
    assert_eq!(work(&mut bench), Json::Null);
    call(&mut bench, "done", json!({"name": "first"})).unwrap();
    assert_eq!(work(&mut bench), json!(["after"]));
    assert_eq!(work(&mut bench), Json::Null);
    call(&mut bench, "done", json!({"name": "after"})).unwrap();
    assert_eq!(work(&mut bench), json!(["large"]));
    assert_eq!(bench.states()["large"], TaskState::Running);
    assert_eq!(bench.states()["small"], TaskState::Pending);
    assert_eq!(bench.named("first").cause, Cause::Observed);
}

#[test]
pub(crate) fn batches_are_claimed_together_and_the_last_end_closes_the_run() {
    let mut bench = open_bench();
    for name in ["a", "b", "c"] {
        add(&mut bench, json!({"name": name, "family": "f"}));
    }
    assert_eq!(work(&mut bench), json!(["a", "b", "c"]));
    for name in ["a", "b", "c"] {
        assert_eq!(bench.state(), RunState::Running);
        call(&mut bench, "done", json!({"name": name})).unwrap();
    }
    assert_eq!(bench.state(), RunState::Succeeded);
    assert_eq!(
        call(&mut bench, "get_work", Json::Null).unwrap_err(),
        format!("run {} does not accept tasks from outside", bench.run)
    );
}

#[test]
pub(crate) fn a_claim_that_is_not_renewed_goes_to_another() {
    let mut bench = open_bench();
    add(&mut bench, json!({"name": "a"}));
    assert_eq!(work(&mut bench), json!(["a"]));
    assert_eq!(bench.engine.next_timer(), Some(EngineTime(10_000_000)));
    bench.after(LEASE_MS - 1);
    assert_eq!(bench.states()["a"], TaskState::Running);
    bench.after(1);
    assert_eq!(bench.states()["a"], TaskState::Pending);
    assert_eq!(bench.engine.next_timer(), None);
    assert_eq!(call(&mut bench, "done", json!({"name": "a"})).unwrap_err(), "a is not claimed");
    assert_eq!(work(&mut bench), json!(["a"]));
    assert_eq!(bench.named("a").attempt, 2);
}

#[test]
pub(crate) fn the_machine_comes_back_from_its_rows() {
    let mut bench = open_bench();
    add(&mut bench, json!({"name": "a", "priority": 3}));
    add(&mut bench, json!({"name": "b"}));
    assert_eq!(work(&mut bench), json!(["a"]));
    let mut rows: BTreeMap<Vec<u8>, MachineRow> = BTreeMap::new();
    for row in bench.batches.iter().flat_map(|b| b.machine.iter()) {
        rows.insert(row.key.clone(), row.clone());
    }
    let mut image = bench.engine.image(bench.run).unwrap();
    image.machine = rows.into_values().collect();
    assert_eq!(image.machine.len(), 2);
    let mut engine = Engine::new(EngineOptions::default());
    engine.register_machine("test", Arc::new(Factory));
    engine.restore_run(image, Arc::new(open_workflow()), bench.now).unwrap();
    engine.take_up(bench.now);
    bench.engine = engine;
    assert_eq!(bench.engine.next_timer(), Some(EngineTime(10_000_000)), "its timer is armed");
    call(&mut bench, "done", json!({"name": "a"})).unwrap();
    assert_eq!(work(&mut bench), json!(["b"]));
    call(&mut bench, "done", json!({"name": "b"})).unwrap();
    assert_eq!(bench.state(), RunState::Succeeded);
}

/// The run's rows as a store has them after all batches.
fn stored(bench: &Bench) -> RunImage {
    let mut tasks: BTreeMap<TaskNo, TaskRow> = BTreeMap::new();
    let mut machine: BTreeMap<Vec<u8>, MachineRow> = BTreeMap::new();
    let mut image = bench.engine.image(bench.run).unwrap();
    for batch in &bench.batches {
        tasks
            .extend(batch.tasks.iter().filter(|t| t.run == bench.run).map(|t| (t.task, t.clone())));
        for id in &batch.removed_tasks {
            tasks.remove(&id.task);
        }
        machine.extend(batch.machine.iter().map(|row| (row.key.clone(), row.clone())));
    }
    image.tasks = tasks.into_values().collect();
    image.machine = machine.into_values().filter(|row| row.value.is_some()).collect();
    image
}

fn restored(image: RunImage, bench: &mut Bench) {
    let mut engine = Engine::new(EngineOptions::default());
    engine.register_machine("test", Arc::new(Factory));
    engine.restore_run(image, Arc::new(open_workflow()), bench.now).unwrap();
    engine.take_up(bench.now);
    bench.engine = engine;
}

#[test]
pub(crate) fn what_the_machine_forgets_leaves_the_memory_and_then_the_rows() {
    let mut bench = open_bench();
    add(&mut bench, json!({"name": "open", "needs": ["never"]}));
    add(&mut bench, json!({"name": "stays", "needs": ["never"]}));
    add(&mut bench, json!({"name": "a"}));
    assert_eq!(work(&mut bench), json!(["a"]));
    let first = bench.named("a").task;
    call(&mut bench, "done", json!({"name": "a"})).unwrap();
    call(&mut bench, "forget", json!({"name": "stays"})).unwrap();
    assert_eq!(bench.states()["stays"], TaskState::Pending, "only what has ended leaves");
    call(&mut bench, "forget", json!({"name": "a"})).unwrap();
    assert!(!bench.states().contains_key("a"));
    assert_eq!(stored(&bench).tasks.len(), 4, "its row stays for readers");
    let id = TaskId { run: bench.run, task: first };
    let mark = Command::Mark { task: id, outcome: Outcome::Failed, by: String::new() };
    assert!(bench.refuse(mark).contains("does not exist"));

    // It comes back under its name, as another task, also after a restart.
    add(&mut bench, json!({"name": "a"}));
    let image = stored(&bench);
    assert_eq!(image.tasks.iter().filter(|t| t.name == "a").count(), 2);
    restored(image, &mut bench);
    assert_eq!(bench.states()["a"], TaskState::Pending);
    assert_ne!(bench.named("a").task, first);
    assert_eq!(work(&mut bench), json!(["a"]));
    call(&mut bench, "done", json!({"name": "a"})).unwrap();
    call(&mut bench, "forget", json!({"name": "a"})).unwrap();

    // The rows of many are not kept for ever either.
    for number in 0..10_100 {
        let name = json!({"name": format!("n{number}")});
        add(&mut bench, name.clone());
        work(&mut bench);
        call(&mut bench, "done", name.clone()).unwrap();
        call(&mut bench, "forget", name).unwrap();
    }
    let image = stored(&bench);
    assert_eq!(bench.engine.task_rows(bench.run).len(), 3);
    assert_eq!(image.tasks.len(), 3 + 10_000);
    assert!(image.tasks.iter().all(|t| t.task != first));
    assert_eq!(image.run.counts[TaskState::Succeeded as usize], 10_000);
    let last = image.tasks.last().unwrap().task;
    restored(image, &mut bench);
    assert_eq!(bench.engine.task_rows(bench.run).len(), 3, "nor after a restart");
    add(&mut bench, json!({"name": "new"}));
    assert_eq!(bench.named("new").task.0, last.0 + 1);
}

#[test]
pub(crate) fn nobody_changes_what_a_machine_decides() {
    let mut bench = open_bench();
    add(&mut bench, json!({"name": "a"}));
    let task = bench.id("a");
    let mark = Command::Mark { task, outcome: Outcome::Succeeded, by: String::new() };
    assert!(bench.refuse(mark).contains("own calls"));
    let stop = Command::StopTask { task, reason: String::new() };
    assert!(bench.refuse(stop).contains("own calls"));
    assert!(bench.refuse(Command::PauseRun { run: bench.run }).contains("own calls"));
    assert_eq!(bench.states()["a"], TaskState::Pending);
}

#[test]
pub(crate) fn a_driver_adds_observes_and_closes() {
    let task = |name: &str| NewTask {
        name: name.to_owned(),
        upstream: vec!["up".to_owned()],
        state: TaskState::Pending,
        priority: 0,
        inputs: Json::Null,
        extra: Json::Null,
    };
    let mut bench = open_bench();
    let run = bench.run;
    bench.apply(Command::AddTasks { run, tasks: vec![task("a"), task("b")] });
    bench.apply(Command::AddTasks { run, tasks: vec![NewTask { priority: 7, ..task("a") }] });
    assert_eq!(bench.states().len(), 2, "a known name is the same task");
    assert_eq!(bench.named("a").priority, 7);
    let observe = |name: &str, state| Command::Observe {
        run,
        name: name.to_owned(),
        state,
        cause: Cause::Observed,
        message: None,
        at: Timestamp(5),
    };
    bench.apply(observe("a", TaskState::Running));
    bench.apply(observe("a", TaskState::Failed));
    bench.apply(observe("a", TaskState::Running));
    assert_eq!(bench.named("a").attempt, 2);
    assert_eq!(bench.named("a").started_at, Some(Timestamp(5)));
    bench.apply(observe("a", TaskState::Succeeded));
    let text = bench.refuse(observe("nobody", TaskState::Running));
    assert!(text.ends_with("has no task \"nobody\""), "{text}");
    bench.apply(Command::CloseRun { run, outcome: Outcome::Failed });
    assert_eq!(bench.state(), RunState::Failed);
    assert_eq!(bench.states()["a"], TaskState::Succeeded);
    assert_eq!(bench.states()["b"], TaskState::Cancelled, "what had not ended ends with it");
    let text = bench.refuse(Command::CloseRun { run, outcome: Outcome::Failed });
    assert!(text.ends_with("does not accept tasks from outside"), "{text}");
    // A closed run takes no tasks.
    let mut closed = Bench::new(workflow(vec![node("x")], vec![]));
    let text = closed.refuse(Command::AddTasks { run: closed.run, tasks: vec![task("a")] });
    assert!(text.ends_with("does not accept tasks from outside"), "{text}");
}

#[test]
pub(crate) fn a_stopped_open_run_cancels_what_is_left() {
    let mut bench = open_bench();
    add(&mut bench, json!({"name": "a"}));
    work(&mut bench);
    bench.apply(Command::StopRun {
        run: bench.run,
        mode: kobza_engine::StopMode::Cancel,
        reason: String::new(),
    });
    assert_eq!(bench.state(), RunState::Cancelled);
    assert_eq!(bench.states()["a"], TaskState::Cancelled);
    assert_eq!(bench.engine.next_timer(), None);
}
