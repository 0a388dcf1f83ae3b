//! How rare and bulky parts of rows are packed, the same in every database.
//!
//! What most rows do not have goes into one JSON text; absent when there is nothing in it. Events
//! of a batch are one blob whose first byte names the packing, so that it can change.

use std::borrow::Cow;

use kobza_model::{
    Cause, EngineTime, Event, Json, NodeNo, RunRow, RunState, TaskRow, TaskState, Workflow,
};
use serde::{Deserialize, Serialize};

use crate::StoreError;

type Result<T> = std::result::Result<T, StoreError>;

const PLAIN: u8 = 1;
const ZSTD: u8 = 2;
/// Below this many bytes compression gains less than it costs.
const COMPRESS_FROM: usize = 512;
/// The fastest level that still finds repeated ids.
const LEVEL: i32 = 1;
/// No blob of ours unpacks to more: a corrupt length must not eat the memory.
const MAX_UNPACKED: usize = 1 << 30;

/// The rare parts of a task.
#[derive(Serialize, Deserialize, Default, PartialEq)]
struct TaskMore<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kill: Option<Cause>,
    #[serde(default, skip_serializing_if = "zero")]
    lost: u32,
    #[serde(default, skip_serializing_if = "zero")]
    attempts_before: u32,
    #[serde(default, skip_serializing_if = "empty")]
    skips: Cow<'a, [NodeNo]>,
    #[serde(default, skip_serializing_if = "null")]
    inputs: Cow<'a, Json>,
    #[serde(default, skip_serializing_if = "null")]
    carry: Cow<'a, Json>,
    #[serde(default, skip_serializing_if = "null")]
    extra: Cow<'a, Json>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn zero(n: &u32) -> bool {
    *n == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn zero_signed(n: &i32) -> bool {
    *n == 0
}

fn empty(list: &[NodeNo]) -> bool {
    list.is_empty()
}

fn null(json: &Json) -> bool {
    json.is_null()
}

/// The task's rare parts as JSON text; `None` when it has none.
pub(crate) fn task_more(row: &TaskRow) -> Result<Option<String>> {
    if row.message.is_none()
        && row.kill.is_none()
        && row.lost == 0
        && row.attempts_before == 0
        && row.skips.is_empty()
        && row.inputs.is_null()
        && row.carry.is_null()
        && row.extra.is_null()
    {
        return Ok(None);
    }
    text(&TaskMore {
        message: row.message.as_deref().map(Cow::Borrowed),
        kill: row.kill,
        lost: u32::from(row.lost),
        attempts_before: row.attempts_before,
        skips: Cow::Borrowed(&row.skips),
        inputs: Cow::Borrowed(&row.inputs),
        carry: Cow::Borrowed(&row.carry),
        extra: Cow::Borrowed(&row.extra),
    })
    .map(Some)
}

/// The inverse of [`task_more`].
pub(crate) fn set_task_more(row: &mut TaskRow, more: Option<&str>) -> Result<()> {
    let Some(more) = more else { return Ok(()) };
    let more: TaskMore<'_> = from_text(more)?;
    row.message = more.message.map(Cow::into_owned);
    row.kill = more.kill;
    row.lost = u8::try_from(more.lost).unwrap_or(u8::MAX);
    row.attempts_before = more.attempts_before;
    row.skips = more.skips.into_owned();
    row.inputs = more.inputs.into_owned();
    row.carry = more.carry.into_owned();
    row.extra = more.extra.into_owned();
    Ok(())
}

/// The rare parts of a run.
#[derive(Serialize, Deserialize, Default, PartialEq)]
struct RunMore<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "zero_signed")]
    priority: i32,
    #[serde(default, skip_serializing_if = "zero")]
    generation: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    paused_from: Option<RunState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deadline: Option<EngineTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stop: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "null")]
    extra: Cow<'a, Json>,
}

/// The run's rare parts as JSON text; `None` when it has none.
pub(crate) fn run_more(row: &RunRow) -> Result<Option<String>> {
    let more = RunMore {
        message: row.message.as_deref().map(Cow::Borrowed),
        priority: row.priority,
        generation: row.generation,
        paused_from: row.paused_from,
        deadline: row.deadline,
        stop: row.stop.as_deref().map(Cow::Borrowed),
        extra: Cow::Borrowed(&row.extra),
    };
    if more == RunMore::default() { Ok(None) } else { text(&more).map(Some) }
}

/// The inverse of [`run_more`].
pub(crate) fn set_run_more(row: &mut RunRow, more: Option<&str>) -> Result<()> {
    let Some(more) = more else { return Ok(()) };
    let more: RunMore<'_> = from_text(more)?;
    row.message = more.message.map(Cow::into_owned);
    row.priority = more.priority;
    row.generation = more.generation;
    row.paused_from = more.paused_from;
    row.deadline = more.deadline;
    row.stop = more.stop.map(Cow::into_owned);
    row.extra = more.extra.into_owned();
    Ok(())
}

/// JSON text of anything that serializes.
pub(crate) fn text<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| StoreError::at("writing JSON", e))
}

/// JSON text, or `None` for null.
pub(crate) fn json_text(value: &Json) -> Result<Option<String>> {
    if value.is_null() { Ok(None) } else { text(value).map(Some) }
}

pub(crate) fn from_text<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| StoreError::at("reading JSON", e))
}

/// The inverse of [`json_text`].
pub(crate) fn json_value(text: Option<&str>) -> Result<Json> {
    text.map_or(Ok(Json::Null), from_text)
}

/// Packed small numbers.
pub(crate) fn pack_counts(counts: &[u32]) -> Result<Vec<u8>> {
    postcard::to_allocvec(counts).map_err(|e| StoreError::at("packing counts", e))
}

pub(crate) fn unpack_counts(bytes: &[u8]) -> Result<Vec<u32>> {
    postcard::from_bytes(bytes).map_err(|e| StoreError::at("unpacking counts", e))
}

/// All events of a batch as one blob.
pub(crate) fn pack_events(events: &[Event]) -> Result<Vec<u8>> {
    let mut plain = vec![PLAIN];
    plain = postcard::to_extend(events, plain).map_err(|e| StoreError::at("packing events", e))?;
    if plain.len() < COMPRESS_FROM { Ok(plain) } else { compress(&plain[1..]) }
}

pub(crate) fn unpack_events(bytes: &[u8]) -> Result<Vec<Event>> {
    let plain = unpack(bytes)?;
    postcard::from_bytes(&plain).map_err(|e| StoreError::at("unpacking events", e))
}

/// A definition as compressed JSON.
pub(crate) fn pack_workflow(workflow: &Workflow) -> Result<Vec<u8>> {
    pack_bytes(text(workflow)?.as_bytes())
}

pub(crate) fn unpack_workflow(bytes: &[u8]) -> Result<Workflow> {
    serde_json::from_slice(&unpack(bytes)?).map_err(|e| StoreError::at("reading a workflow", e))
}

/// Bytes, compressed when that pays.
pub(crate) fn pack_bytes(bytes: &[u8]) -> Result<Vec<u8>> {
    if bytes.len() < COMPRESS_FROM {
        let mut packed = Vec::with_capacity(bytes.len() + 1);
        packed.push(PLAIN);
        packed.extend_from_slice(bytes);
        Ok(packed)
    } else {
        compress(bytes)
    }
}

pub(crate) fn unpack_text(bytes: &[u8]) -> Result<String> {
    String::from_utf8(unpack(bytes)?.into_owned()).map_err(|e| StoreError::at("reading text", e))
}

fn compress(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut packed = vec![ZSTD];
    let body = zstd::bulk::compress(bytes, LEVEL).map_err(|e| StoreError::at("compressing", e))?;
    packed.extend_from_slice(&body);
    Ok(packed)
}

fn unpack(bytes: &[u8]) -> Result<Cow<'_, [u8]>> {
    match bytes.split_first() {
        Some((&PLAIN, body)) => Ok(Cow::Borrowed(body)),
        Some((&ZSTD, body)) => {
            // The size is in the frame's head: we compress in one piece.
            let size = zstd::zstd_safe::get_frame_content_size(body)
                .ok()
                .flatten()
                .and_then(|size| usize::try_from(size).ok())
                .filter(|size| *size <= MAX_UNPACKED)
                .ok_or_else(|| StoreError("a packed row has no sane size".into()))?;
            zstd::bulk::decompress(body, size)
                .map(Cow::Owned)
                .map_err(|e| StoreError::at("decompressing", e))
        }
        Some((other, _)) => Err(StoreError(format!("unknown packing {other}"))),
        None => Err(StoreError("an empty packed row".into())),
    }
}

/// Numbers of states and causes come from the database: an unknown one is an error, not a panic.
pub(crate) fn run_state(number: u8) -> Result<RunState> {
    RunState::from_number(number).ok_or_else(|| StoreError(format!("unknown run state {number}")))
}

pub(crate) fn task_state(number: u8) -> Result<TaskState> {
    TaskState::from_number(number).ok_or_else(|| StoreError(format!("unknown task state {number}")))
}

pub(crate) fn cause(number: u8) -> Result<Cause> {
    Cause::from_number(number).ok_or_else(|| StoreError(format!("unknown cause {number}")))
}
