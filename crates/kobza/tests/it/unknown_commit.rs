//! A commit of which nobody can say whether it happened: what was acknowledged is kept, what is
//! asked again happens once, and the tasks that ran meanwhile end.

use std::collections::BTreeSet;
use std::process::Command;

use crate::machine::{Folder, Server, until};

const WORKFLOW: &str = "name: w\ntasks:\n  a: {shell: 'echo x'}\n  b: {shell: 'echo y', needs: a}\n  c: {noop: true, needs: b}\n";

/// Starts runs under keys while commits fail in between; each key has one run in the end.
fn each_key_has_one_run(server: &Server, keys: u32, mut fail: impl FnMut(), mended: impl Fn()) {
    assert_eq!(server.post("/api/v1/workflows", "application/yaml", WORKFLOW).0, 201);
    let mut acknowledged = BTreeSet::new();
    let mut uncertain = 0;
    let runs = || server.get("/api/v1/runs?workflow=w&limit=200").1["items"].clone();
    let rest = || {
        until("all runs end", || {
            runs().as_array().is_some_and(|all| all.iter().all(|r| r["state"] == "succeeded"))
        });
    };
    for key in 0..keys {
        // Every other time the commit that fails may be one of a report.
        if key % 2 == 0 {
            rest();
        }
        let body = format!("{{\"key\": \"k{key}\"}}");
        let start = || server.post("/api/v1/workflows/w/runs", "application/json", &body);
        fail();
        let (status, answer) = start();
        match status {
            201 => {
                acknowledged.insert(answer["id"].as_str().unwrap().to_owned());
            }
            _ => {
                uncertain += 1;
                assert_eq!(answer["error"]["code"], "store_unavailable", "{answer}");
                mended();
                until("the key is taken", || {
                    let (status, answer) = start();
                    assert!(matches!(status, 201 | 409 | 503), "{answer}");
                    status != 503
                });
            }
        }
        mended();
    }
    assert!(uncertain > 0, "no commit failed under a call");
    rest();
    let runs = runs();
    let runs = runs.as_array().unwrap();
    let found: BTreeSet<&str> = runs.iter().map(|run| run["key"].as_str().unwrap()).collect();
    assert_eq!((found.len(), runs.len()), (keys as usize, keys as usize), "{runs:?}");
    for id in &acknowledged {
        assert!(runs.iter().any(|run| run["id"] == id.as_str()), "{id} is gone");
    }
}

/// `fsync` that fails while a file is there.
const FAILING_SYNC: &str = "
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/syscall.h>
static int fails(void) { const char *f = getenv(\"FAILING_SYNC\"); return f && access(f, F_OK) == 0; }
int fsync(int fd) { if (fails()) { errno = EIO; return -1; } return syscall(SYS_fsync, fd); }
int fdatasync(int fd) { if (fails()) { errno = EIO; return -1; } return syscall(SYS_fdatasync, fd); }
";

#[test]
fn the_disk_fails_in_the_middle_of_a_commit() {
    let folder = Folder::new();
    let source = folder.write("sync.c", FAILING_SYNC);
    let library = folder.path().join("sync.so");
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    if !built.is_ok_and(|status| status.success()) {
        eprintln!("skipped: there is no C compiler");
        return;
    }
    let flag = folder.path().join("fails");
    let server = Server::start_under(
        &folder,
        &[("LD_PRELOAD", library.to_str().unwrap()), ("FAILING_SYNC", flag.to_str().unwrap())],
    );
    each_key_has_one_run(
        &server,
        5,
        || {
            folder.write("fails", "");
        },
        || {
            if flag.exists() {
                std::fs::remove_file(&flag).unwrap();
            }
        },
    );
    drop(server);
    let doctor = folder.kobza(&["doctor", "--data", "data"]);
    assert!(crate::machine::text(&doctor.stdout).contains("sound"), "{doctor:?}");
}
