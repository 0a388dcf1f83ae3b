//! Identifiers that Airflow knows and the engine does not.

use kobza_model::{RunId, TaskNo};
use sha2::{Digest as _, Sha256};
use uuid::{Builder, Uuid};

/// The id of a task instance: another one for each try, the same whenever it is asked for. Like
/// Airflow's own it is a version 7 UUID, with the time of its run.
#[must_use]
pub fn task_instance(run: RunId, task: TaskNo, try_number: u32) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(b"airflow task instance");
    hash.update(run.0.as_bytes());
    hash.update(task.0.to_be_bytes());
    hash.update(try_number.to_be_bytes());
    let digest = hash.finalize();
    let mut bytes = *run.0.as_bytes();
    // Behind the 48 bits of milliseconds.
    bytes[6..].copy_from_slice(&digest[..10]);
    let mut builder = Builder::from_bytes(bytes);
    builder.set_variant(uuid::Variant::RFC4122).set_version(uuid::Version::SortRand);
    builder.into_uuid()
}

/// The id of a DAG version, from its workflow's content hash.
#[must_use]
pub fn dag_version(version: &str) -> Uuid {
    let digest = Sha256::digest(version.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    let mut builder = Builder::from_bytes(bytes);
    builder.set_variant(uuid::Variant::RFC4122).set_version(uuid::Version::Custom);
    builder.into_uuid()
}

/// An asset's URI as Kobza names it: a name begins and ends with no `/`.
#[must_use]
pub fn asset_name(uri: &str) -> String {
    let name = uri.trim_end_matches('/');
    match name.starts_with('/') {
        true => format!("file://{name}"),
        false => name.to_owned(),
    }
}

/// A number for something that has a name here and a number in Airflow: the same whenever it is asked
/// for, and small enough for every reader of JSON.
#[must_use]
pub fn number(kind: &str, name: &str) -> u64 {
    let digest = Sha256::digest(format!("{kind}\n{name}").as_bytes());
    let mut bytes = [0; 8];
    bytes[2..].copy_from_slice(&digest[..6]);
    u64::from_be_bytes(bytes).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_by_try_and_stay() {
        let run: RunId = "0190163d-8694-739b-aea5-966c26f8ad91".parse().unwrap();
        let id = task_instance(run, TaskNo(3), 1);
        assert_eq!(id, task_instance(run, TaskNo(3), 1));
        assert_ne!(id, task_instance(run, TaskNo(3), 2));
        assert_ne!(id, task_instance(run, TaskNo(4), 1));
        assert_eq!(asset_name("s3://bucket/key/"), "s3://bucket/key");
        assert_eq!(asset_name("/data/orders"), "file:///data/orders");
        assert_eq!((id.get_version_num(), &id.to_string()[..13]), (7, "0190163d-8694"));
    }
}
