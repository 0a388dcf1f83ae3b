//! A receiver of HTTP.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::machine::text;

#[derive(Clone)]
pub(crate) struct Received {
    path: String,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
    status: u16,
}

impl Received {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// A receiver that answers as it is told, and keeps what it got.
pub(crate) struct Sink {
    port: u16,
    pub(crate) status: Arc<AtomicU16>,
    got: Arc<Mutex<Vec<Received>>>,
}

impl Sink {
    pub(crate) fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let status = Arc::new(AtomicU16::new(status));
        let got = Arc::new(Mutex::new(Vec::new()));
        let (answers, kept) = (status.clone(), got.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A sender that was killed in the middle is no failure of the receiver.
                if let Some(received) = take(stream, answers.load(Ordering::SeqCst)) {
                    kept.lock().unwrap().push(received);
                }
            }
        });
        Self { port, status, got }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn at(&self, path: &str, accepted: bool) -> Vec<Received> {
        let all = self.got.lock().unwrap().clone();
        all.into_iter().filter(|r| r.path == path && (r.status == 200) == accepted).collect()
    }
}

fn take(stream: TcpStream, status: u16) -> Option<Received> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_lowercase(), value.to_owned())),
            None => break,
        }
    }
    let length =
        headers.iter().find(|(n, _)| n == "content-length").map_or("0", |(_, value)| value);
    let length: usize = length.parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    reader.into_inner().write_all(answer.as_bytes()).ok()?;
    Some(Received { path, headers, body: text(&body), status })
}
