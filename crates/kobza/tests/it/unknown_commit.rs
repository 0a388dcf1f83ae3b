//! A commit of which nobody can say whether it happened: what was acknowledged is kept, what is
//! asked again happens once, and the tasks that ran meanwhile end.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

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

const PASS: u8 = 0;
/// The connection ends before the database hears of the commit.
const BEFORE: u8 = 1;
/// It ends when the database has committed and says so.
const AFTER: u8 = 2;

/// Stands between the server and its database, and cuts a connection at a commit when told to.
struct Between {
    mode: AtomicU8,
    cuts: AtomicU32,
}

impl Between {
    /// Listens as a database does, in `folder`; answers a URL that leads here.
    fn start(folder: &Folder, url: &str) -> (Arc<Self>, String) {
        let between = Arc::new(Self { mode: AtomicU8::new(PASS), cuts: AtomicU32::new(0) });
        let (before, rest) = url.split_once('@').unwrap();
        let (host, after) = rest.split_once('/').unwrap();
        let listener = UnixListener::bind(folder.path().join(".s.PGSQL.5432")).unwrap();
        let (own, host) = (between.clone(), host.replace("%2F", "/"));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let database = connect(&host);
                own.clone().carry(client, database);
            }
        });
        let here = folder.path().to_string_lossy().replace('/', "%2F");
        (between, format!("{before}@{here}/{after}"))
    }

    fn carry(self: Arc<Self>, mut client: UnixStream, mut database: UnixStream) {
        let cut = Arc::new(AtomicU8::new(PASS));
        let (mut answers, mut back) = (database.try_clone().unwrap(), client.try_clone().unwrap());
        let swallow = cut.clone();
        let own = self.clone();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(got @ 1..) = answers.read(&mut buffer) {
                if swallow.load(Ordering::SeqCst) == AFTER {
                    own.cuts.fetch_add(1, Ordering::SeqCst);
                    break;
                }
                if back.write_all(&buffer[..got]).is_err() {
                    break;
                }
            }
            end(&answers, &back);
        });
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            // Readers have transactions too; the writer's begins with the shard's row.
            let mut writes = false;
            while let Ok(got @ 1..) = client.read(&mut buffer) {
                let says = |text: &[u8]| buffer[..got].windows(text.len()).any(|part| part == text);
                writes |= says(b"UPDATE shard");
                let commits = writes && says(b"COMMIT\0");
                let mode = if commits { self.mode.swap(PASS, Ordering::SeqCst) } else { PASS };
                if mode == BEFORE {
                    self.cuts.fetch_add(1, Ordering::SeqCst);
                    break;
                }
                cut.fetch_max(mode, Ordering::SeqCst);
                if database.write_all(&buffer[..got]).is_err() {
                    break;
                }
            }
            if cut.load(Ordering::SeqCst) != AFTER {
                end(&client, &database);
            }
        });
    }
}

fn end(one: &UnixStream, other: &UnixStream) {
    for stream in [one, other] {
        // It may have ended already.
        let _gone = stream.shutdown(Shutdown::Both);
    }
}

/// A connection to `/folder` or `host:port`; only used as a stream of bytes.
fn connect(host: &str) -> UnixStream {
    if host.starts_with('/') {
        return UnixStream::connect(format!("{host}/.s.PGSQL.5432")).unwrap();
    }
    let place = if host.contains(':') { host.to_owned() } else { format!("{host}:5432") };
    UnixStream::from(OwnedFd::from(TcpStream::connect(place).unwrap()))
}

#[test]
fn the_database_goes_in_the_middle_of_a_commit() {
    let Ok(base) = std::env::var("KOBZA_TEST_POSTGRES") else {
        eprintln!("skipped: KOBZA_TEST_POSTGRES is not set");
        return;
    };
    for (name, mode) in [("before", BEFORE), ("after", AFTER)] {
        let folder = Folder::new();
        let (between, url) = Between::start(&folder, &base);
        let separator = if url.contains('?') { '&' } else { '?' };
        let schema = format!("kobza_it_unknown_{name}_{}", std::process::id());
        let url = format!("{url}{separator}schema={schema}");
        let server = Server::start_under(&folder, &[("KOBZA_STORE", &url)]);
        let mut armed = 0;
        each_key_has_one_run(
            &server,
            5,
            || {
                armed += 1;
                between.mode.store(mode, Ordering::SeqCst);
            },
            || until("the connection was cut", || between.mode.load(Ordering::SeqCst) == PASS),
        );
        assert_eq!(between.cuts.load(Ordering::SeqCst), armed, "{name}");
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
