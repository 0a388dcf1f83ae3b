//! Images from a container engine (Docker, Podman): their root file systems are taken over the
//! engine's socket once, and unpacked; commands then run in a private view of them like in any other.

use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kobza_model::Json;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::archive;

/// How long an engine may be silent: pulling an image takes its time.
const SILENCE: Duration = Duration::from_secs(600);
/// Largest answer that is not an image.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// What an image says of how it is run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Unpacked {
    pub(super) root: PathBuf,
    pub(super) entrypoint: Vec<String>,
    pub(super) command: Vec<String>,
    pub(super) environment: Vec<String>,
    pub(super) folder: String,
}

/// The root file system of an image, unpacked below `images` if it is not there yet.
pub(super) fn unpacked(
    socket: &Path,
    images: &Path,
    image: &str,
    pull: Option<&str>,
) -> Result<Unpacked, String> {
    let fail = |what: String| format!("image {image:?}: {what}");
    if image.is_empty() || image.contains(char::is_whitespace) || image.contains(['?', '#', '\0']) {
        return Err(fail("it is no name of an image".to_owned()));
    }
    let engine = Engine { socket };
    let found = match (pull, engine.inspect(image).map_err(fail)?) {
        (Some("Always"), _) | (None | Some("IfNotPresent"), None) => {
            engine.pull(image).map_err(fail)?;
            engine.inspect(image).map_err(fail)?
        }
        (_, found) => found,
    };
    let found = found.ok_or_else(|| fail("the container engine does not have it".to_owned()))?;
    let id = found["Id"].as_str().unwrap_or_default().trim_start_matches("sha256:");
    if id.is_empty() || !id.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(fail("the container engine gives it no id".to_owned()));
    }
    let io = |error: std::io::Error| fail(format!("{}: {error}", images.display()));
    fs::create_dir_all(images).map_err(io)?;
    let root = images.join(id);
    if !root.exists() {
        let lock = fs::File::create(images.join(format!("{id}.lock"))).map_err(io)?;
        lock.lock().map_err(io)?;
        // Another task may have unpacked it meanwhile.
        if !root.exists() {
            let part = images.join(format!("{id}.part"));
            if part.exists() {
                fs::remove_dir_all(&part).map_err(io)?;
            }
            fs::create_dir_all(&part).map_err(io)?;
            engine.export(found["Id"].as_str().unwrap_or_default(), &part).map_err(fail)?;
            fs::rename(&part, &root).map_err(io)?;
        }
    }
    let config = &found["Config"];
    let strings = |field: &str| super::command::strings(&config[field]);
    Ok(Unpacked {
        root,
        entrypoint: strings("Entrypoint"),
        command: strings("Cmd"),
        environment: strings("Env"),
        folder: config["WorkingDir"].as_str().unwrap_or_default().to_owned(),
    })
}

struct Engine<'a> {
    socket: &'a Path,
}

impl Engine<'_> {
    /// Asks; the status, and the body as it comes. In HTTP/1.0, so that it ends with the connection.
    fn ask(&self, method: &str, path: &str, body: &Json) -> Result<(u16, impl Read), String> {
        let at = self.socket.display();
        let mut stream = UnixStream::connect(self.socket).map_err(|error| {
            format!(
                "no container engine answers at {at} ({error}); start one, or let argo.images name \
                 a folder with the image's files"
            )
        })?;
        let fail = |error: std::io::Error| format!("container engine at {at}: {error}");
        stream.set_read_timeout(Some(SILENCE)).map_err(fail)?;
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: engine\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).map_err(fail)?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.by_ref().take(64 << 10).read_line(&mut line).map_err(fail)?;
        let status = line.split_whitespace().nth(1).and_then(|word| word.parse().ok());
        let status = status.ok_or_else(|| format!("container engine at {at}: no HTTP answer"))?;
        loop {
            line.clear();
            let read = reader.by_ref().take(64 << 10).read_line(&mut line).map_err(fail)?;
            if read == 0 || line.trim().is_empty() {
                return Ok((status, reader));
            }
        }
    }

    fn json(&self, method: &str, path: &str, body: &Json) -> Result<(u16, Json), String> {
        let (status, answer) = self.ask(method, path, body)?;
        let mut text = Vec::new();
        answer
            .take(ANSWER_BYTES_MAX)
            .read_to_end(&mut text)
            .map_err(|e| format!("container engine: {e}"))?;
        Ok((status, serde_json::from_slice(&text).unwrap_or(Json::Null)))
    }

    fn inspect(&self, image: &str) -> Result<Option<Json>, String> {
        match self.json("GET", &format!("/images/{image}/json"), &Json::Null)? {
            (200, found) => Ok(Some(found)),
            (404, _) => Ok(None),
            (status, answer) => Err(said(status, &answer)),
        }
    }

    fn pull(&self, image: &str) -> Result<(), String> {
        let named = image.rsplit('/').next().unwrap_or_default().contains([':', '@']);
        let tag = if named { "" } else { "&tag=latest" };
        let path = format!("/images/create?fromImage={}{tag}", image.replace('@', "%40"));
        let (status, answer) = self.ask("POST", &path, &Json::Null)?;
        let mut wrong = None;
        for line in BufReader::new(answer.take(ANSWER_BYTES_MAX)).lines().map_while(Result::ok) {
            let line: Json = serde_json::from_str(&line).unwrap_or(Json::Null);
            let told =
                line["error"].as_str().or(line["message"].as_str().filter(|_| status != 200));
            wrong = told.map(str::to_owned).or(wrong);
        }
        match (status, wrong) {
            (200, None) => Ok(()),
            (_, Some(wrong)) => Err(format!("it cannot be pulled: {wrong}")),
            (status, None) => Err(format!("it cannot be pulled: status {status}")),
        }
    }

    /// Unpacks the files of an image, by a container that is never started.
    fn export(&self, id: &str, folder: &Path) -> Result<(), String> {
        let wanted = json!({ "Image": id, "Cmd": ["true"] });
        let (status, made) = self.json("POST", "/containers/create", &wanted)?;
        let container = made["Id"].as_str().filter(|_| matches!(status, 200 | 201));
        let container = container.ok_or_else(|| said(status, &made))?.to_owned();
        let unpacked = self
            .ask("GET", &format!("/containers/{container}/export"), &Json::Null)
            .and_then(|(status, files)| match status {
                200 => archive::unpack_image(files, folder).map_err(|e| e.to_string()),
                status => Err(said(status, &Json::Null)),
            });
        // One that stays behind does no harm.
        let _left =
            self.json("DELETE", &format!("/containers/{container}?force=true"), &Json::Null);
        unpacked
    }
}

fn said(status: u16, answer: &Json) -> String {
    let message = answer["message"].as_str().unwrap_or("no reason");
    format!("the container engine answers {status}: {message}")
}
