//! What a body gets, gives and may not do, with a real shim.

mod harness;

use std::os::unix::fs::PermissionsExt;

use harness::{World, launch, runs, shell};
use kobza_blobs::LogStream;
use kobza_model::{Cause, Outcome};
use kobza_runtime::{Executor, LaunchSpec};
use serde_json::json;

#[test]
fn output_log_and_surroundings() {
    let world = World::new();
    let server = world.server();
    let mut spec = shell(
        "pwd; cat; cat sub/x; ./run.sh; echo to stderr >&2; env | grep KOBZA_ | sort
         echo \"a=1\" >> $KOBZA_OUTPUT; echo 'b=x y' >> $KOBZA_OUTPUT; mkdir -p deep/er; touch deep/er/f",
    );
    spec.env = vec![("KOBZA_TASK_ID".into(), "7".into()), ("X".into(), "1".into())];
    spec.stdin = Some("from stdin\n".into());
    spec.files = vec![
        ("sub/x".into(), "from file\n".into()),
        ("run.sh".into(), "#!/bin/sh\necho from script".into()),
    ];
    let finished = server.run(launch(1), spec);
    assert_eq!((finished.outcome, finished.cause), (Outcome::Succeeded, Cause::None));
    assert_eq!(finished.outputs, [("a".into(), json!(1)), ("b".into(), json!("x y"))]);
    assert_eq!(finished.exit_code, Some(0));
    let text = world.log_text(launch(1));
    let folder = text.lines().next().unwrap().to_owned();
    for part in ["from stdin", "from file", "from script", "to stderr", "KOBZA_TASK_ID=7"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(text.contains(&format!("KOBZA_LAUNCH={}", launch(1))), "{text}");
    assert!(world.log(launch(1)).iter().any(|l| l.stream == LogStream::Stderr));
    harness::until("the private folder is removed", || !std::path::Path::new(&folder).exists());
}

#[test]
fn exit_codes() {
    let world = World::new();
    let server = world.server();
    let finished = server.shell(1, "exit 3");
    assert_eq!((finished.outcome, finished.cause), (Outcome::Failed, Cause::Code));
    assert_eq!((finished.message.as_str(), finished.exit_code), ("exit code 3", Some(3)));
    let mut spec = shell("exit 99");
    spec.skip_exit_codes = vec![99];
    assert_eq!(server.run(launch(2), spec).outcome, Outcome::Skipped);
    let finished = server.shell(3, "kill -9 $$");
    assert_eq!(finished.message, "killed by SIGKILL (out of memory?)");
    assert_eq!((finished.cause, finished.exit_code), (Cause::Code, Some(137)));
    assert_eq!(server.shell(4, "kill -SEGV $$").message, "killed by SIGSEGV");
}

#[test]
fn what_cannot_start_says_why() {
    let world = World::new();
    let server = world.server();
    let file = world.path("file");
    std::fs::write(&file, "no program").unwrap();
    let script = world.path("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = |program: &str| LaunchSpec { program: program.into(), ..LaunchSpec::default() };
    let in_folder = |folder: &str| LaunchSpec { folder: Some(folder.into()), ..shell("true") };
    let env = |name: &str| LaunchSpec { env: vec![(name.into(), "x".into())], ..shell("true") };
    let files = |name: &str| LaunchSpec { files: vec![(name.into(), "x".into())], ..shell("true") };
    let user = LaunchSpec { user: Some("no-such-user".into()), ..shell("true") };
    let cases = [
        (program("no-such-program"), "program \"no-such-program\" was not found in PATH"),
        (program("/no/such/program"), "program \"/no/such/program\" does not exist"),
        (program(file.to_str().unwrap()), "may not be run (permission denied)"),
        (program(script.to_str().unwrap()), "the interpreter that it names does not exist"),
        (program(""), "no program given"),
        (in_folder("/no/such/folder"), "working folder \"/no/such/folder\""),
        (in_folder(file.to_str().unwrap()), "is not a folder"),
        (env("A=B"), "environment variable \"A=B\""),
        (files("../x"), "file \"../x\": its path must be relative"),
        (files("/etc/x"), "file \"/etc/x\": its path must be relative"),
        (user, "user \"no-such-user\" does not exist"),
    ];
    for (number, (spec, message)) in (1u32..).zip(cases) {
        let finished = server.run(launch(number), spec);
        assert_eq!((finished.outcome, finished.cause), (Outcome::Failed, Cause::Code), "{message}");
        assert!(finished.message.contains(message), "{} / {message}", finished.message);
        assert!(world.log_text(launch(number)).contains(message));
    }
}

#[test]
fn outputs_are_checked() {
    let world = World::new();
    let server = world.server();
    let mut spec = shell("head -c 2000 /dev/zero | tr '\\0' x > $KOBZA_OUTPUT");
    spec.output_bytes = Some(1000);
    let finished = server.run(launch(1), spec);
    assert_eq!((finished.outcome, finished.cause), (Outcome::Failed, Cause::Limit));
    assert_eq!(finished.message, "output file of 2000 bytes is over the limit of 1000 bytes");
    let finished = server.shell(2, "echo '{\"a\": }' > $KOBZA_OUTPUT");
    assert_eq!((finished.outcome, finished.cause), (Outcome::Failed, Cause::Code));
    assert!(finished.message.contains("not a JSON object"), "{}", finished.message);
    let finished = server.shell(3, "mkfifo $KOBZA_OUTPUT");
    assert!(finished.message.contains("not a regular file"), "{}", finished.message);
    let mut spec = shell("echo one; printf 'two\\n\\n'; echo err >&2");
    spec.capture_result = true;
    assert_eq!(server.run(launch(4), spec).outputs, [("result".into(), json!("two"))]);
}

#[test]
fn hostile_logs() {
    let world = World::new();
    let server = world.server();
    // More than the limit: stated, and the body goes on undisturbed.
    let mut spec = shell(
        "head -c 3000000 /dev/zero | tr '\\0' 'x' | fold -w 99; echo ok >&2; echo done=1 > $KOBZA_OUTPUT",
    );
    spec.log_bytes = Some(100_000);
    let finished = server.run(launch(1), spec);
    assert_eq!((finished.outcome, finished.outputs.len()), (Outcome::Succeeded, 1));
    assert!(server.sink.note(launch(1), "log_truncated").contains("100"));
    let log = world.log(launch(1));
    assert!(log.last().unwrap().text().starts_with("log limit of 100000 bytes reached"));
    assert!(world.logs.reader(launch(1)).len().unwrap() < 101_000);

    // Bytes of every kind come back as they were.
    server.shell(2, "printf 'a\\0b\\377\\033[31m\\r\\n\\n'; printf 'no end'");
    let log = world.log(launch(2));
    let bytes: Vec<&[u8]> = log.iter().map(|l| l.bytes.as_slice()).collect();
    assert_eq!(bytes, [&b"a\0b\xff\x1b[31m\r"[..], b"", b"no end"]);
    assert!(log[2].partial);

    // Secrets are masked, in the log and in messages.
    let mut spec = shell("printf 'key hun'; sleep 0.05; echo 'ter2 and hunter2!'");
    spec.secrets = vec!["hunter2".into()];
    server.run(launch(3), spec);
    let text = world.log_text(launch(3));
    assert!(!text.contains("hunter2") && text.contains("*** and ***!"), "{text}");
    let spec = LaunchSpec {
        program: "hunter2".into(),
        secrets: vec!["hunter2".into()],
        ..LaunchSpec::default()
    };
    assert!(server.run(launch(4), spec).message.contains("program \"***\" was not found"));
}

#[test]
fn a_log_that_cannot_be_written_disturbs_nobody() {
    let world = World::new();
    std::fs::write(world.path("logs"), "in the way").unwrap();
    let server = world.server();
    let finished = server.shell(1, "seq 1 1000; echo a=1 > $KOBZA_OUTPUT");
    assert_eq!((finished.outcome, finished.outputs.len()), (Outcome::Succeeded, 1));
    let note = server.sink.note(launch(1), "log_incomplete");
    assert!(note.contains("bytes of log lost"), "{note}");
}

#[test]
fn umask_and_folder() {
    let world = World::new();
    let server = world.server();
    let mut spec = shell("umask; pwd; touch made");
    spec.umask = Some(0o027);
    spec.folder = Some(world.folder.path().to_str().unwrap().to_owned());
    server.run(launch(1), spec);
    let text = world.log_text(launch(1));
    assert!(text.starts_with("0027\n"), "{text}");
    assert!(world.path("made").exists(), "{text}");
    let mode = std::fs::metadata(world.path("made")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    let mut spec = shell("echo path=$PATH home=$HOME x=$X");
    spec.clear_env = true;
    spec.env = vec![("X".into(), "1".into())];
    server.run(launch(2), spec);
    let text = world.log_text(launch(2));
    assert!(text.contains("home= x=1"), "{text}");
}

#[test]
fn another_user() {
    let world = World::new();
    let server = world.server();
    let mut spec = shell("id -un; id -G; echo $HOME; cat f; echo ok=true > $KOBZA_OUTPUT");
    spec.user = Some("nobody".into());
    spec.files = vec![("f".into(), "mine\n".into())];
    let finished = server.run(launch(1), spec);
    if std::fs::metadata(world.folder.path()).is_ok_and(|m| {
        use std::os::unix::fs::MetadataExt;
        m.uid() == 0
    }) {
        assert_eq!(finished.outcome, Outcome::Succeeded, "{}", world.log_text(launch(1)));
        assert_eq!(finished.outputs, [("ok".into(), json!(true))]);
        let text = world.log_text(launch(1));
        assert!(text.starts_with("nobody\n65534\n"), "{text}");
        assert!(text.ends_with("mine\n"), "{text}");
    } else {
        assert_eq!(finished.cause, Cause::Code);
        assert!(finished.message.contains("does not run as root"), "{}", finished.message);
    }
}

#[test]
fn memory_and_cpu_limits() {
    let world = World::new();
    let server = world.server();
    let mut spec = shell("x=$(head -c 300000000 /dev/zero | tr '\\0' x); echo got ${#x}");
    spec.memory_bytes = Some(100 << 20);
    let finished = server.run(launch(1), spec);
    assert_eq!(finished.outcome, Outcome::Failed, "{}", world.log_text(launch(1)));
    assert!(!world.log_text(launch(1)).contains("got"));
    assert!(finished.message.contains("limit of 104857600 bytes"), "{}", finished.message);
    // Each process is within the limit, the tree is not.
    let mut spec = shell(
        // Each `tail` keeps all that it has read, and nobody takes it.
        "for i in 1 2 3 4; do head -c 40000000 /dev/zero | tail -c 40000000 | sleep 60 & done; wait",
    );
    spec.memory_bytes = Some(120 << 20);
    let finished = server.run(launch(3), spec);
    assert_eq!((finished.outcome, finished.cause), (Outcome::Failed, Cause::Limit));
    assert!(
        finished.message.contains("over its limit of 125829120 bytes of memory"),
        "{}",
        finished.message
    );
    let mut spec = shell("while :; do :; done");
    spec.cpu_seconds = Some(1);
    let finished = server.run(launch(2), spec);
    assert_eq!((finished.outcome, finished.cause), (Outcome::Failed, Cause::Limit));
    assert!(finished.message.contains("limit of 1 s of CPU time"), "{}", finished.message);
}

#[test]
fn a_timeout_ends_the_whole_tree_of_one_that_ignores_signals() {
    let world = World::new();
    let server = world.server();
    let pids = world.path("pids");
    let mut spec = shell(&format!(
        "trap '' TERM; (trap '' TERM; echo $(exec sh -c 'echo $PPID') > {0}; while :; do sleep 1; done) &
         while :; do sleep 1; done",
        pids.display()
    ));
    spec.timeout_ms = Some(200);
    spec.grace_ms = Some(200);
    server.executor.launch(launch(1), spec);
    let child = harness::pid_in(&pids);
    let finished = server.sink.finished(launch(1));
    assert_eq!((finished.outcome, finished.cause), (Outcome::Failed, Cause::Timeout));
    assert_eq!(finished.message, "timed out after 0.2 s");
    assert!(!runs(child));
    assert!(world.log_text(launch(1)).contains("timed out after 0.2 s"));
}

#[test]
fn a_polite_body_may_clean_up() {
    let world = World::new();
    let server = world.server();
    let mut spec = shell("trap 'echo cleaned; exit 0' TERM; echo up; while :; do sleep 0.01; done");
    spec.timeout_ms = Some(300);
    let finished = server.run(launch(1), spec);
    assert_eq!((finished.outcome, finished.cause), (Outcome::Failed, Cause::Timeout));
    assert!(world.log_text(launch(1)).contains("cleaned"));
}

#[test]
fn nothing_is_left_behind() {
    let world = World::new();
    let server = world.server();
    // Daemons: with the token, and with an empty environment in a session of their own.
    for (number, prefix) in [(1, "setsid"), (2, "setsid env -i"), (3, "env -i")] {
        let path = world.path(&format!("pid{number}"));
        let script = format!(
            "({prefix} sh -c 'echo $$ > {0}; sleep 1000; :' & ) ; while ! test -s {0}; do sleep 0.01; done",
            path.display()
        );
        let finished = server.shell(number, &script);
        assert_eq!(finished.outcome, Outcome::Succeeded);
        let pid = harness::pid_in(&path);
        harness::until("the daemon is killed", || !runs(pid));
    }
    // What only finishes its work is not disturbed.
    server.shell(4, "(sleep 0.1; echo the end) & exit 0");
    assert_eq!(world.log_text(launch(4)), "the end\n");
}

#[test]
fn built_in_bodies() {
    let world = World::new();
    let server = world.server();
    let url = format!("sqlite://{}", world.path("x.db").display());
    let sql = |sql: &str, expect: serde_json::Value| LaunchSpec {
        program: kobza_executor_process::SQL_PROGRAM.into(),
        stdin: Some(json!({"url": url, "sql": sql, "expect": expect}).to_string()),
        ..LaunchSpec::default()
    };
    let finished = server.run(launch(1), sql("create table t(a); select 5 as n", json!(5)));
    assert_eq!(finished.outcome, Outcome::Succeeded, "{}", finished.message);
    assert!(finished.outputs.contains(&("rows".into(), json!([{"n": 5}]))));
    let finished = server.run(launch(2), sql("select count(*) > 0 from t", json!(true)));
    assert_eq!((finished.outcome, finished.cause), (Outcome::Failed, Cause::Check));
    assert_eq!(finished.message, "expected true, found 0");
    // The same by the binary's own path.
    let by_path = LaunchSpec {
        program: env!("CARGO_BIN_EXE_kobza-test-shim").into(),
        args: vec!["exec".into(), "sql".into()],
        ..sql("select 1", json!(2))
    };
    assert_eq!(server.run(launch(5), by_path).message, "expected 2, found 1");
    let finished = server.run(launch(3), sql("select * from no_such_table", json!(1)));
    assert_eq!(finished.cause, Cause::Code);
    assert!(finished.message.contains("no such table"), "{}", finished.message);
    let spec = LaunchSpec {
        program: kobza_executor_process::HTTP_PROGRAM.into(),
        stdin: Some(json!({"url": "http://127.0.0.1:1/"}).to_string()),
        ..LaunchSpec::default()
    };
    assert_eq!(server.run(launch(4), spec).cause, Cause::Infrastructure);
}

#[test]
fn a_full_disk_is_stated() {
    let Some(disk) = std::env::var_os("KOBZA_TEST_SMALL_DISK") else {
        eprintln!("skipped: KOBZA_TEST_SMALL_DISK names no folder on a file system of under 1 MiB");
        return;
    };
    let world = World::new();
    std::os::unix::fs::symlink(disk, world.path("logs")).unwrap();
    let server = world.server();
    let finished = server.shell(1, "seq 1 300000; echo a=1 > $KOBZA_OUTPUT");
    assert_eq!((finished.outcome, finished.outputs.len()), (Outcome::Succeeded, 1));
    let note = server.sink.note(launch(1), "log_incomplete");
    assert!(note.contains("No space left on device"), "{note}");
    // What is there is whole lines, and where some are missing it says so.
    let log = world.log(launch(1));
    for line in &log {
        let text = line.text();
        match line.stream {
            LogStream::System => assert!(text.contains("bytes of log lost here"), "{text}"),
            _ => assert!(text.parse::<u32>().is_ok(), "{text}"),
        }
    }
    assert_eq!(log[0].text(), "1");
}
