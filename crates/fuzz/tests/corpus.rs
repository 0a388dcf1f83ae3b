//! The kept corpus, on stable: nothing in it panics or takes long.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

#[test]
fn the_corpus_is_taken_by_every_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    for (name, target) in kobza_fuzz::TARGETS {
        let folder = root.join("corpus").join(name);
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{folder:?}: {e}"));
        let files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        assert!(files.len() >= 3, "{name} has a corpus of {}", files.len());
        for file in files {
            eprintln!("{}", file.display());
            target(&std::fs::read(&file).unwrap());
        }
        let binary = root.join("fuzz_targets").join(format!("{name}.rs"));
        assert!(binary.exists(), "{} is missing", binary.display());
    }
}

/// Each file cut short, and with a byte changed: what a fuzzer does first.
#[test]
fn damaged_corpora_are_taken_too() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, target) in kobza_fuzz::TARGETS {
        for entry in std::fs::read_dir(root.join(name)).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            let step = (bytes.len() / 8).max(1);
            for place in (0..bytes.len()).step_by(step) {
                target(&bytes[..place]);
                for change in [0x01, 0x20, 0x80] {
                    let mut damaged = bytes.clone();
                    damaged[place] ^= change;
                    target(&damaged);
                }
            }
        }
    }
}
