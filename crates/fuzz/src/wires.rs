//! What comes over wires and out of files.

use kobza_dialect_airflow::task::msgpack;
use kobza_dialect_luigi::{LuigiConfig, MemoryHost};
use kobza_model::{EngineTime, Json, Now, RunId, Timestamp};

use crate::text;

/// Calls of a Luigi worker, a line each: the method, a space, its arguments as they are posted.
pub(crate) fn luigi_call(bytes: &[u8]) {
    let Some(source) = text(bytes) else { return };
    let host = MemoryHost::new(RunId(uuid::Uuid::nil()), LuigiConfig::default());
    for (number, line) in source.lines().take(50).enumerate() {
        let (method, arguments) = line.split_once(' ').unwrap_or((line, "{}"));
        let at = i64::try_from(number).unwrap_or(0) * 1_000_000;
        let now = Now { wall: Timestamp(at), engine: EngineTime(at) };
        let _reply = host.call_at(now, method, &Json::String(arguments.to_owned()));
    }
}

pub(crate) fn airflow_msgpack(bytes: &[u8]) {
    if let Ok(value) = msgpack::decode(bytes) {
        let frame = msgpack::frame(&value);
        let again = msgpack::decode(&frame[4..]);
        assert_eq!(again.ok(), Some(value), "a value reads back");
    }
    let mut frames = msgpack::Frames::default();
    for part in bytes.chunks(7) {
        frames.push(part);
        while let Ok(Some(_frame)) = frames.take_frame() {}
    }
}

pub(crate) fn shim_frames(bytes: &[u8]) {
    kobza_executor_process::read_frames(bytes);
}

pub(crate) fn log_line(bytes: &[u8]) {
    let line = kobza_blobs::LogLine::parse(bytes);
    let _shown = line.text();
}

/// An archive of any kind, unpacked: nothing may be made outside of its folder, and no link may lead
/// out of it.
pub(crate) fn archive(bytes: &[u8]) {
    let Ok(place) = tempfile::tempdir() else { return };
    let (packed, folder) = (place.path().join("packed"), place.path().join("out"));
    if std::fs::write(&packed, bytes).is_err() || std::fs::create_dir(&folder).is_err() {
        return;
    }
    let limits = kobza_dialect_argo::exec::Limits { bytes: 1 << 20, entries: 100 };
    let _refused = kobza_dialect_argo::exec::unpack_any(&packed, &folder, limits);
    let entries = std::fs::read_dir(place.path()).into_iter().flatten().flatten();
    let names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
    assert_eq!(names.len(), 2, "something was made outside: {names:?}");
    stays_inside(&folder, &folder);
}

fn stays_inside(folder: &std::path::Path, root: &std::path::Path) {
    let Ok(root) = root.canonicalize() else { return };
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let kind = entry.file_type();
        if kind.as_ref().is_ok_and(std::fs::FileType::is_symlink) {
            if let Ok(to) = entry.path().canonicalize() {
                assert!(to.starts_with(&root), "a link leads out: {}", entry.path().display());
            }
        } else if kind.is_ok_and(|kind| kind.is_dir()) {
            stays_inside(&entry.path(), &root);
        }
    }
}
