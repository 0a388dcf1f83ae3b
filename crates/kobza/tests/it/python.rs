//! Python tasks through the real binary: bodies that misbehave, kills, examples.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::machine::{Folder, Server, kill, processes, text, until};

const BAD: &str = include_str!("python/bad.py");
const SLOW: &str = include_str!("python/slow.py");

fn task<'a>(run: &'a Value, name: &str) -> &'a Value {
    let all = run["tasks"].as_array().unwrap();
    all.iter().find(|t| t["name"] == name).unwrap_or_else(|| panic!("no task {name}: {run}"))
}

/// Runs a file's workflow and answers the run with its tasks.
fn run(folder: &Folder, args: &[&str]) -> Value {
    let mut all = vec!["run"];
    all.extend(args);
    all.extend(["-o", "json"]);
    folder.json(&all)
}

#[test]
fn bodies_that_misbehave_end_in_words() {
    let folder = Folder::new();
    folder.write("bad.py", BAD);
    let run = run(&folder, &["bad.py"]);
    assert_eq!(run["state"], "failed");
    for (name, state, message) in [
        ("raises", "failed", "ZeroDivisionError: division by zero (bad.py:16 in deeper)"),
        ("mute", "failed", "bad.Mute: (its __str__ raised RuntimeError) (bad.py:26 in mute)"),
        (
            "unstorable",
            "failed",
            "kobza.errors.NotStorable: the result of unstorable cannot be kept: a value of type \
             object cannot be kept; return JSON values, a data frame, an array or a \
             kobza.Artifact, or ask for pickle with @task(result=\"pickle\")",
        ),
        (
            "exits",
            "failed",
            "the process ended before the function returned: something in it called os._exit",
        ),
        ("exits_with_code", "failed", "exit code 7"),
        ("killed", "failed", "killed by SIGKILL (out of memory?)"),
        ("ignores_term", "failed", "timed out after 1 s"),
        ("grandchildren", "failed", "timed out after 1 s"),
        ("says_no", "failed", "no more"),
        ("forks_and_leaves", "succeeded", ""),
        ("both_return", "succeeded", ""),
        ("closes_stdout", "succeeded", ""),
        ("binary_stderr", "succeeded", ""),
        ("fine", "succeeded", ""),
    ] {
        let task = task(&run, name);
        let said = task["message"].as_str().unwrap_or_default();
        assert_eq!((task["state"].as_str(), said), (Some(state), message), "{name}");
    }
    // Its memory limit is a control group where there is one, else an address space.
    let hungry = task(&run, "hungry");
    assert_eq!(hungry["state"], "failed");
    let said = hungry["message"].as_str().unwrap();
    assert!(said.contains("MemoryError") || said.contains("memory"), "{said}");
    assert_eq!(task(&run, "fine")["outputs"], json!({"result": 42}));
    assert_eq!(task(&run, "forks_and_leaves")["outputs"], json!({"result": "parent"}));

    let log = text(&folder.kobza(&["logs", "raises"]).stdout);
    let frames = [
        "Traceback (your code, most recent call last):",
        "in raises",
        "in deeper",
        "ZeroDivisionError: division by zero",
    ];
    let places: Vec<_> = frames.iter().map(|frame| log.find(frame)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{log}");
    assert!(!log.contains("kobza_worker"), "only the user's frames: {log}");
    // Nothing that they left behind is alive.
    let mark = "sleep 613613";
    until("grandchildren are gone", || processes(|line| line.starts_with(mark)).is_empty());
}

#[test]
fn files_that_cannot_be_loaded() {
    let folder = Folder::new();
    folder.write("syntax.py", "from kobza import task\n\ndef a(:\n    pass\n");
    folder.write("absent.py", "import nowhere_to_be_found\n");
    folder.write("nothing.py", "import kobza\n");
    folder.write("dies.py", "import os\nos._exit(3)\n");
    for (file, words) in [
        ("syntax.py", &["syntax.py:3", "SyntaxError"][..]),
        ("absent.py", &["absent.py:1", "No module named 'nowhere_to_be_found'"]),
        ("nothing.py", &["defines no workflow", "@workflow"]),
    ] {
        let output = folder.kobza(&["run", file]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{file}: {said}");
        for word in words {
            assert!(said.contains(word), "{word:?} not in {said}");
        }
    }
    folder.write(
        "w.yaml",
        "name: w
tasks:
  syntax: {python: {function: a, file: syntax.py}}
  import: {python: {function: a, file: absent.py}}
  function: {python: {function: nothign, file: nothing.py}}
  dies: {python: {function: a, file: dies.py}}
  module: {python: no_such_module.function}
  fine: {python: {function: getcwd, file: fine.py}}
",
    );
    folder.write("fine.py", "from os import getcwd\n");
    let run = run(&folder, &["w.yaml"]);
    for (name, state, words) in [
        ("syntax", "failed", "the import failed: SyntaxError: invalid syntax"),
        ("import", "failed", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("function", "failed", "has no 'nothign'"),
        ("dies", "failed", "the process ended while it imported the module"),
        ("module", "failed", "No module named 'no_such_module'"),
        ("fine", "succeeded", ""),
    ] {
        let task = task(&run, name);
        assert_eq!(task["state"], state, "{task}");
        assert!(task["message"].as_str().unwrap_or_default().contains(words), "{task}");
    }
}

/// Children that a warm parent has just forked look like strangers for a moment: nobody may end
/// them.
#[test]
fn a_fan_out_of_forks_loses_nobody() {
    let folder = Folder::new();
    folder.write(
        "fan.py",
        "from kobza import task, workflow\n\n@task\ndef one(n: int):\n    return n\n\n\
         @workflow\ndef fan():\n    one.map(list(range(400)))\n",
    );
    let run = run(&folder, &["fan.py"]);
    let failed: Vec<&Value> =
        run["tasks"].as_array().unwrap().iter().filter(|t| t["state"] != "succeeded").collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(run["tasks"].as_array().unwrap().len(), 400);
}

fn lines(folder: &Folder) -> Vec<String> {
    folder.read("lines").lines().map(str::to_owned).collect()
}

fn slow(folder: &Folder) -> (Server, String) {
    folder.write("slow.py", SLOW);
    folder.write(
        "slow.yaml",
        format!(
            "name: slow
tasks:
  first: {{python: {{function: first, file: {0}/slow.py}}}}
  slow: {{python: {{function: slow, file: {0}/slow.py}}, needs: first}}
  last: {{python: {{function: last, file: {0}/slow.py}}, needs: slow}}
",
            folder.path().display()
        ),
    );
    let server = Server::start(folder);
    let (status, answer) =
        server.post("/api/v1/workflows", "application/yaml", &folder.read("slow.yaml"));
    assert_eq!(status, 201, "{answer}");
    let (_, run) = server.post("/api/v1/workflows/slow/runs", "application/json", "{}");
    until("the slow task runs", || lines(folder).len() == 2);
    (server, run["id"].as_str().unwrap().to_owned())
}

/// Warm parents below the shims of this folder.
fn parents(folder: &Folder) -> Vec<u32> {
    let here = folder.path().canonicalize().unwrap();
    let here = here.to_string_lossy().into_owned();
    let mut found = processes(|line| line.contains("kobza_worker parent") && line.contains(&here));
    // Workers that wait carry the same command line; the parent is the oldest.
    found.sort_unstable();
    found
}

#[test]
fn a_killed_parent_harms_no_task() {
    let folder = Folder::new();
    let (server, id) = slow(&folder);
    let running: u32 = folder.read("pid").trim().parse().unwrap();
    for pid in parents(&folder).into_iter().filter(|pid| *pid != running) {
        kill(pid, "-9");
    }
    folder.write("go", "");
    assert_eq!(server.wait_run(&id), "succeeded");
    assert_eq!(lines(&folder), ["first", "slow-begin", "slow-end", "last"]);
}

#[test]
fn a_killed_worker_fails_its_task_alone() {
    let folder = Folder::new();
    let (server, id) = slow(&folder);
    kill(folder.read("pid").trim().parse().unwrap(), "-9");
    assert_eq!(server.wait_run(&id), "failed");
    assert_eq!(lines(&folder), ["first", "slow-begin"]);
    let run = server.run(&id);
    assert!(run["message"].as_str().unwrap().contains("killed by SIGKILL"), "{run}");
}

#[test]
fn a_killed_server_takes_up_a_python_task() {
    let folder = Folder::new();
    let (server, id) = slow(&folder);
    let port = server.port();
    server.kill_9();
    folder.write("go", "");
    until("the slow task ends", || lines(&folder).len() == 3);
    let server = Server::start_on(&folder, port);
    assert_eq!(server.wait_run(&id), "succeeded");
    assert_eq!(lines(&folder), ["first", "slow-begin", "slow-end", "last"]);
}

#[test]
fn a_killed_shim_lets_a_python_task_run_again() {
    let folder = Folder::new();
    let (server, id) = slow(&folder);
    for pid in folder.shims() {
        kill(pid, "-9");
    }
    until("the slow task runs again", || lines(&folder).len() == 3);
    folder.write("go", "");
    assert_eq!(server.wait_run(&id), "succeeded");
    assert_eq!(lines(&folder), ["first", "slow-begin", "slow-begin", "slow-end", "last"]);
}

#[test]
fn cancel_reaches_grandchildren() {
    let folder = Folder::new();
    folder.write(
        "g.py",
        "import subprocess\n\ndef f():\n    child = subprocess.Popen(['sleep', '614614'])\n    \
         open('grandchild', 'w').write(str(child.pid) + '\\n')\n    child.wait()\n",
    );
    let server = Server::start(&folder);
    let yaml = format!(
        "name: g\ntasks:\n  a: {{python: {{function: f, file: {0}/g.py}}, folder: {0}}}\n",
        folder.path().display()
    );
    let (status, answer) = server.post("/api/v1/workflows", "application/yaml", &yaml);
    assert_eq!(status, 201, "{answer}");
    let (_, run) = server.post("/api/v1/workflows/g/runs", "application/json", "{}");
    let id = run["id"].as_str().unwrap();
    until("the grandchild runs", || folder.read("grandchild").ends_with('\n'));
    let pid = folder.read("grandchild").trim().to_owned();
    let (status, answer) =
        server.post(&format!("/api/v1/runs/{id}/cancel"), "application/json", "{}");
    assert!(status < 300, "{answer}");
    assert_eq!(server.wait_run(id), "cancelled");
    assert!(!Path::new("/proc").join(pid).exists());
}

fn example(name: &str) -> String {
    format!("{}/../../examples/{name}/flow.py", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_example_of_a_map() {
    let folder = Folder::new();
    let run = run(&folder, &[&example("python-map"), "-p", "count=1000"]);
    assert_eq!(run["state"], "succeeded", "{}", run["message"]);
    assert_eq!(run["tasks"].as_array().unwrap().len(), 1002);
    assert_eq!(task(&run, "total")["outputs"]["result"], 332_833_500);
}

#[test]
fn the_example_of_partitioned_assets() {
    let folder = Folder::new();
    let run = run(&folder, &[&example("python-assets"), "--partition", "2013-01-05"]);
    assert_eq!(run["state"], "succeeded", "{}", run["message"]);
    let report = run["tasks"].as_array().unwrap().iter().find_map(|t| {
        t["outputs"]["result"].as_str().filter(|text| text.starts_with("2013-01-05: "))
    });
    assert!(report.is_some_and(|text| text.contains("spent most")), "{run}");
}

#[test]
fn the_example_of_an_etl() {
    let folder = Folder::new();
    folder.write("sources.py", include_str!("python/sources.py"));
    let python = |args: &[&str]| {
        let mut command = Command::new("python3");
        command.args(args).current_dir(folder.path());
        command
    };
    assert!(python(&["sources.py"]).status().unwrap().success());
    let api = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/nightly-etl/weather_api.py");
    let mut server = python(&[api, "weather.csv", "port"]).spawn().unwrap();
    until("the weather API listens", || folder.read("port").trim().parse::<u16>().is_ok());
    let url = format!("weather_url=http://127.0.0.1:{}", folder.read("port").trim());
    let results = folder.path().join("results");
    let [flights, movies] = ["flights.csv.zip", "movies.db"].map(|name| folder.path().join(name));
    let run = run(
        &folder,
        &[
            &example("python-etl"),
            "-p",
            "day=2013-03-10",
            "-p",
            &url,
            "-p",
            &format!("flights_csv={}", flights.display()),
            "-p",
            &format!("movies_db={}", movies.display()),
            "-p",
            &format!("results={}", results.display()),
        ],
    );
    let _ = server.kill();
    let _ = server.wait();
    assert_eq!(run["state"], "succeeded", "{run}");
    let counts = &task(&run, "publish")["outputs"]["result"];
    assert_eq!(counts, &json!({"flights": 60, "weather": 48, "movies": 2, "delays": 24}));
    assert!(results.join("report-2013-03-10.html").is_file());
}

#[test]
fn a_running_task_adds_tasks() {
    let folder = Folder::new();
    folder.write("grows.py", include_str!("python/grows.py"));
    let good = run(&folder, &["grows.py"]);
    assert_eq!(good["state"], "succeeded", "{good}");
    for (name, result) in [
        ("plan", 3),
        ("part-0", 0),
        ("part-1", 10),
        ("part-2", 20),
        ("together", 990),
        ("after", 4),
    ] {
        let task = task(&good, name);
        assert_eq!(task["state"], "succeeded", "{task}");
        assert_eq!(task["outputs"]["result"], result, "{task}");
    }
    let metric = &task(&good, "part-2")["outputs"]["$notes"][0];
    assert_eq!((&metric["kind"], &metric["value"]), (&json!("metric"), &json!(2.0)));

    let failed = run(&folder, &["grows.py", "-p", "fail=true"]);
    assert_eq!(failed["state"], "failed");
    for (name, state, words) in [
        ("together", "succeeded", ""),
        ("bad", "failed", "ValueError: this one fails"),
        ("behind", "upstream_failed", "bad is failed"),
        ("after", "upstream_failed", ""),
        ("plan", "failed", "which it added, failed"),
    ] {
        let task = task(&failed, name);
        assert_eq!(task["state"], state, "{task}");
        assert!(task["message"].as_str().unwrap_or_default().contains(words), "{task}");
    }
}
