//! Ids that follow from what they stand for: a repetition has the same ones.

use kobza_model::TaskId;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// A UUID for an attempt, of version 8.
pub(crate) fn attempt_uuid(task: TaskId, attempt: u32) -> Uuid {
    let digest = Sha256::digest(format!("{task}.{attempt}").as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_stable_and_apart() {
        let task = |n| format!("0195a7c0-0000-7000-8000-000000000001.{n}").parse().unwrap();
        assert_eq!(attempt_uuid(task(1), 1), attempt_uuid(task(1), 1));
        assert_ne!(attempt_uuid(task(1), 1), attempt_uuid(task(1), 2));
        assert_ne!(attempt_uuid(task(1), 1), attempt_uuid(task(2), 1));
        assert_eq!(attempt_uuid(task(1), 1).get_version_num(), 8);
    }
}
