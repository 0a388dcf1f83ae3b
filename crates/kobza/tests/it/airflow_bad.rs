//! DAG folders and environments that are wrong in every way that people have found.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use crate::airflow_run::{Dags, dags, start, tasks};
use crate::machine::{Server, until};

const DAG: &str = "from airflow.sdk import DAG\nfrom airflow.providers.standard.operators.empty \
                   import EmptyOperator\n";

fn dag(dag_id: &str) -> String {
    format!("with DAG(\"{dag_id}\", schedule=None):\n    EmptyOperator(task_id=\"a\")\n")
}

/// Waits until a file's fault says one of these.
fn says(server: &Server, file: &str, words: &[&str]) {
    until(&format!("{file} is said to have {words:?}"), || {
        let (_, body) = server.get(&format!("/api/v1/workflows/{}", file.replace('/', "%2F")));
        let message = body["error"]["message"].as_str().unwrap_or_default();
        words.iter().any(|word| message.contains(word))
    });
}

fn is_there(server: &Server, dag: &str) -> bool {
    server.get(&format!("/api/v1/workflows/{dag}")).0 == 200
}

fn empty(dags: &Dags) {
    for folder in ["hidden".to_owned()].into_iter().chain((0..7).map(|n| format!("folder_{n}"))) {
        std::fs::create_dir_all(dags.folder.path().join("dags").join(folder)).unwrap();
    }
    std::fs::remove_file(dags.folder.path().join("dags/run.py")).unwrap();
}

#[test]
fn each_bad_file_has_its_own_fault_and_the_others_run() {
    let Some(dags) = dags() else { return };
    empty(&dags);
    let write = |name: &str, text: &str| dags.folder.write(&format!("dags/{name}"), text);
    write("good.py", &format!("{DAG}{}", dag("good")));
    write("syntax.py", &format!("{DAG}with DAG(\n{}", dag("syntax")));
    write("leaves.py", &format!("{DAG}import sys\nsys.exit(3)\n"));
    write("loops.py", &format!("{DAG}while True:\n    pass\n"));
    write("dies.py", &format!("{DAG}import os\nos._exit(7)\n"));
    write(
        "threads.py",
        &format!(
            "{DAG}import threading, time\nthreading.Thread(target=lambda: time.sleep(600)).start()\n{}",
            dag("threads")
        ),
    );
    write("first.py", &format!("{DAG}{}", dag("twice")));
    write("second.py", &format!("{DAG}{}", dag("twice")));
    write("hidden/secret.py", &format!("{DAG}raise ValueError('read though ignored')\n"));
    write(".airflowignore", "hidden/\n");
    let limit = [("AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT", "8")];
    let server = dags.server(&limit);
    says(&server, "syntax.py", &["SyntaxError"]);
    says(&server, "loops.py", &["time limit"]);
    says(&server, "leaves.py", &["SystemExit", "without a result"]);
    says(&server, "dies.py", &["without a result"]);
    until("the good ones are read", || {
        ["good", "threads", "twice"].iter().all(|dag| is_there(&server, dag))
    });
    let twice = |file: &str| {
        let body = server.get(&format!("/api/v1/workflows/{file}")).1;
        body["error"]["message"].as_str().is_some_and(|m| m.contains("\"twice\" is in"))
    };
    until("one of two has a fault", || twice("first.py") || twice("second.py"));
    assert_eq!(server.get("/api/v1/workflows/hidden%2Fsecret.py").0, 404);
    for dag in ["good", "threads"] {
        let run = start(&server, dag);
        assert_eq!(server.wait_run(&run), "succeeded", "{:#?}", tasks(&server, &run));
    }
    // A good file that breaks keeps its DAG, and a broken one that is mended loses its fault.
    write("good.py", "# a dag\nfrom airflow import nothing_of_this_name\n");
    says(&server, "good.py", &["ImportError"]);
    assert!(is_there(&server, "good"));
    write("syntax.py", &format!("{DAG}{}", dag("syntax")));
    until("it is mended", || is_there(&server, "syntax"));
    assert_eq!(server.get("/api/v1/workflows/syntax.py").0, 404);
}

#[test]
fn many_files_and_archives_are_read() {
    let Some(dags) = dags() else { return };
    empty(&dags);
    for number in 0..40 {
        let text = format!("{DAG}{}", dag(&format!("many_{number}")));
        dags.folder.write(&format!("dags/folder_{}/many_{number}.py", number % 7), text);
    }
    let script = "import sys, zipfile\nz = zipfile.ZipFile(sys.argv[1], 'w')\n\
                  z.writestr('zipped.py', sys.argv[2])\nz.close()\n";
    let archive = dags.folder.path().join("dags/archive.zip");
    let made = std::process::Command::new(&dags.python)
        .args(["-c", script])
        .arg(&archive)
        .arg(format!("{DAG}from airflow.sdk import task\nwith DAG(\"zipped\", schedule=None):\n    task(task_id=\"b\")(lambda: 5)()\n"))
        .status();
    assert!(made.unwrap().success());
    let server = dags.server(&[]);
    until("all are read", || {
        is_there(&server, "zipped") && (0..40).all(|n| is_there(&server, &format!("many_{n}")))
    });
    let run = start(&server, "zipped");
    assert_eq!(server.wait_run(&run), "succeeded", "{:#?}", tasks(&server, &run));
}

#[test]
fn environments_without_airflow_or_with_another_say_so() {
    let Some(mut dags) = dags() else { return };
    let real = dags.python.clone();
    dags.python = "/usr/bin/python3".to_owned();
    says(&dags.server(&[]), "dags-folder", &["has no Airflow"]);
    dags.python = "/nowhere/python".to_owned();
    says(&dags.server(&[]), "dags-folder", &["no Python interpreter \"/nowhere/python\""]);
    let mut script = String::from("#!/bin/sh\n");
    writeln!(script, "PYTHONPATH={} exec {real} \"$@\"", dags.folder.path().display()).unwrap();
    dags.folder.write("sitecustomize.py", "import airflow\nairflow.__version__ = '3.9.1'\n");
    let python = dags.folder.write("python", script);
    let all = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&python, all).unwrap();
    dags.python = python.display().to_string();
    let server = dags.server(&[]);
    says(&server, "dags-folder", &["has Airflow 3.9.1, whose task SDK is 1.3.2; 3.3.x"]);
}
