//! A folder with the binary in it.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest wait for something that must happen. Generous: machines are shared.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Folder {
    folder: tempfile::TempDir,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path().join(name)).unwrap_or_default()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kobza"));
        command.args(args).current_dir(self.path()).env_remove("KOBZA_DATA").stdin(Stdio::null());
        command
    }

    pub(crate) fn kobza(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    pub(crate) fn start(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let output = self.kobza(args);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}{}", text(&output.stdout), text(&output.stderr)))
    }

    /// Shims of this folder's store.
    pub(crate) fn shims(&self) -> Vec<u32> {
        let here = self.path().canonicalize().unwrap();
        processes(|line| line.contains(" shim ") && line.contains(&*here.to_string_lossy()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        for pid in self.shims() {
            kill(pid, "-TERM");
        }
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn processes(wanted: impl Fn(&str) -> bool) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        let mut line = Vec::new();
        if let Ok(mut file) = std::fs::File::open(entry.path().join("cmdline"))
            && file.read_to_end(&mut line).is_ok()
        {
            let line = text(&line).replace('\0', " ");
            if wanted(&line) {
                found.push(pid);
            }
        }
    }
    found
}

pub(crate) fn kill(pid: u32, signal: &str) {
    let _gone =
        Command::new("kill").args([signal, &pid.to_string()]).stderr(Stdio::null()).status();
}

/// Waits until it holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "waited too long for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A server on a free port.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    port: u16,
}

impl Server {
    pub(crate) fn start(folder: &Folder) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self::start_on(folder, port)
    }

    pub(crate) fn start_with(folder: &Folder, more: &[&str]) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self::launch(folder, port, more)
    }

    pub(crate) fn start_on(folder: &Folder, port: u16) -> Self {
        Self::launch(folder, port, &[])
    }

    pub(crate) fn put(&self, path: &str, body: &str) -> (u16, Value) {
        let url = format!("{}{path}", self.url);
        answer(agent().put(url).header("content-type", "application/json").send(body))
    }

    /// With these in its environment.
    pub(crate) fn start_under(folder: &Folder, environment: &[(&str, &str)]) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self::launch_under(folder, port, &[], environment)
    }

    /// With more arguments, and these in its environment.
    pub(crate) fn start_fully(
        folder: &Folder,
        more: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self::launch_under(folder, port, more, environment)
    }

    fn launch(folder: &Folder, port: u16, more: &[&str]) -> Self {
        Self::launch_under(folder, port, more, &[])
    }

    fn launch_under(
        folder: &Folder,
        port: u16,
        more: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let listen = format!("127.0.0.1:{port}");
        let mut args = vec!["server", "--listen", &listen, "--data", "data"];
        args.extend(more);
        let mut command = folder.command(&args);
        command.envs(environment.iter().copied());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let server = Self { child, url: format!("http://{listen}"), port };
        until("the server is ready", || ureq::get(format!("{}/ready", server.url)).call().is_ok());
        server
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn kill_9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        answer(agent().get(format!("{}{path}", self.url)).call())
    }

    pub(crate) fn post(&self, path: &str, kind: &str, body: &str) -> (u16, Value) {
        answer(agent().post(format!("{}{path}", self.url)).header("content-type", kind).send(body))
    }

    pub(crate) fn run(&self, id: &str) -> Value {
        self.get(&format!("/api/v1/runs/{id}")).1
    }

    pub(crate) fn wait_run(&self, id: &str) -> String {
        let mut state = String::new();
        until("the run ends", || {
            state = self.run(id)["state"].as_str().unwrap_or_default().to_owned();
            matches!(state.as_str(), "succeeded" | "failed" | "cancelled")
        });
        state
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

pub(crate) fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

pub(crate) fn answer(
    result: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> (u16, Value) {
    let mut response = result.unwrap();
    let status = response.status().as_u16();
    let body = response.body_mut().read_to_string().unwrap_or_default();
    (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
}
