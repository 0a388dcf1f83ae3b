//! Notifications by e-mail: the same message id however often it is tried, credentials, a server
//! that is away.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::machine::{Folder, Server, until};

#[derive(Clone, Debug, Default)]
struct Mail {
    login: String,
    to: Vec<String>,
    text: String,
    taken: bool,
}

impl Mail {
    fn header(&self, name: &str) -> Vec<String> {
        let head = self.text.split("\r\n\r\n").next().unwrap_or_default();
        let own = head.lines().filter_map(|line| line.strip_prefix(&format!("{name}: ")));
        own.map(str::to_owned).collect()
    }
}

/// A mail server that takes mails, or puts them off.
struct Post {
    port: u16,
    takes: Arc<AtomicBool>,
    mails: Arc<Mutex<Vec<Mail>>>,
}

impl Post {
    fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let takes = Arc::new(AtomicBool::new(false));
        let mails = Arc::new(Mutex::new(Vec::new()));
        let (willing, kept) = (takes.clone(), mails.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A sender that was killed in the middle is no failure of the server.
                let mail = talk(stream, willing.load(Ordering::SeqCst));
                kept.lock().unwrap().extend(mail);
            }
        });
        Self { port, takes, mails }
    }

    fn mails(&self, taken: bool) -> Vec<Mail> {
        let all = self.mails.lock().unwrap().clone();
        all.into_iter().filter(|mail| mail.taken == taken).collect()
    }
}

fn talk(stream: TcpStream, takes: bool) -> Option<Mail> {
    let mut write = stream.try_clone().ok()?;
    let mut read = BufReader::new(stream);
    let mut say = |text: &str| write.write_all(format!("{text}\r\n").as_bytes()).ok();
    let mut mail = Mail { taken: takes, ..Mail::default() };
    say("220 post")?;
    loop {
        let mut line = String::new();
        if read.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        match line.split([' ', ':']).next().unwrap_or_default() {
            "EHLO" => say("250-post\r\n250 AUTH PLAIN")?,
            "AUTH" => {
                mail.login = line.rsplit(' ').next().unwrap_or_default().to_owned();
                say("235 welcome")?
            }
            "RCPT" => {
                mail.to.push(line.to_owned());
                say("250 ok")?
            }
            "DATA" => {
                say("354 go on")?;
                loop {
                    let mut line = String::new();
                    read.read_line(&mut line).ok()?;
                    if line == ".\r\n" {
                        break;
                    }
                    mail.text += &line;
                }
                say(if takes { "250 taken" } else { "451 later" })?;
                if takes {
                    return Some(mail);
                }
                return Some(mail);
            }
            "QUIT" => return None,
            _ => say("250 ok")?,
        };
    }
}

const RULES: &str = "
[[notify]]
name = 'mail'
on = ['failure']
form = 'email'
connection = 'post'
to = ['ops@example.org', 'Ann <ann@example.org>']
subject = '{{ event.workflow }} {{ event.what }}'
text = 'run {{ event.run }}: {{ event.message }}'
";

#[test]
fn mails_are_tried_again_under_the_same_id() {
    let folder = Folder::new();
    let post = Post::open();
    folder.write("out.toml", RULES);
    folder.write("password", "hunter2\n");
    let server = Server::start_with(&folder, &["--config", "out.toml"]);
    let body = json!({
        "kind": "smtp",
        "fields": {
            "url": format!("smtp://127.0.0.1:{}?tls=none", post.port),
            "from": "Kobza <kobza@example.org>", "user": "kobza",
        },
        "from": {"password": {"file": folder.path().join("password")}},
    });
    let (status, put) = server.put("/api/v1/connections/post", &body.to_string());
    assert_eq!(status, 200, "{put}");
    let yaml = "name: bad\ntasks: {a: {shell: exit 3}}\n";
    assert_eq!(server.post("/api/v1/workflows", "application/yaml", yaml).0, 201);
    let (_, run) = server.post("/api/v1/workflows/bad/runs", "application/json", "{}");
    let run = run["id"].as_str().unwrap();
    assert_eq!(server.wait_run(run), "failed");
    until("the mail has been tried", || !post.mails(false).is_empty());
    server.kill_9();
    post.takes.store(true, Ordering::SeqCst);
    let server = Server::start_with(&folder, &["--config", "out.toml"]);
    until("the mail is taken", || !post.mails(true).is_empty());
    let mail = post.mails(true).remove(0);
    assert_eq!(mail.header("Subject"), ["bad failed"]);
    assert_eq!(mail.to.len(), 2, "{mail:?}");
    assert!(mail.text.contains(run), "{mail:?}");
    let ids = mail.header("Message-ID");
    assert!(ids[0].starts_with("<mail-") && ids[0].ends_with("@example.org>"), "{ids:?}");
    for earlier in post.mails(false) {
        assert_eq!(earlier.header("Message-ID"), ids);
        assert_eq!(earlier.header("Date"), mail.header("Date"));
    }
    // NUL, user, NUL, password.
    assert_eq!(mail.login, "AGtvYnphAGh1bnRlcjI=");
    until("nothing is left", || {
        server.get("/api/v1/notifications").1["items"].as_array().is_some_and(Vec::is_empty)
    });
    assert_eq!(post.mails(true).len(), 1);
}
