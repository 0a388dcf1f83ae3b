//! Definitions: what is accepted, and what exactly is said about those that are not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};

use kobza_dialect_native::{json_schema, parse, read_file};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn files(name: &str) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        std::fs::read_dir(folder(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    assert!(!all.is_empty());
    all
}

/// The document as a JSON value, by another reader than the parser's own.
fn as_json(text: &str) -> serde_json::Value {
    serde_saphyr::from_str(text).unwrap()
}

#[test]
fn good_definitions_parse_and_satisfy_the_schema() {
    let validator = jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .build(&json_schema())
        .unwrap();
    for file in files("good") {
        let text = read_file(&file).unwrap();
        let parsed = parse(text.as_bytes(), "f").unwrap_or_else(|errors| {
            let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
            panic!("{}:\n{}", file.display(), all.join("\n"))
        });
        assert!(!parsed.workflow.templates.is_empty());
        let errors: Vec<String> = validator
            .iter_errors(&as_json(&text))
            .map(|e| format!("{} {e}", e.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{}: {errors:?}", file.display());
    }
}

/// Examples of the repository are definitions like any other.
#[test]
fn examples_parse_and_satisfy_the_schema() {
    let validator = jsonschema::validator_for(&json_schema()).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut found = 0;
    for example in std::fs::read_dir(root).unwrap() {
        let folder = example.unwrap().path();
        if !folder.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(folder).unwrap() {
            let file = file.unwrap().path();
            if file.extension().is_none_or(|e| e != "yaml" && e != "yml") {
                continue;
            }
            let text = read_file(&file).unwrap();
            // Other systems' examples lie there too; native ones have `tasks`.
            if as_json(&text).get("tasks").is_none() {
                continue;
            }
            found += 1;
            parse(text.as_bytes(), "f")
                .unwrap_or_else(|errors| panic!("{}: {}", file.display(), errors[0]));
            assert!(validator.is_valid(&as_json(&text)), "{}", file.display());
        }
    }
    assert!(found > 0);
}

/// Triggers are written for the crate that reads them.
#[test]
fn triggers_are_what_their_reader_takes() {
    for file in files("good") {
        let text = read_file(&file).unwrap();
        let workflow = parse(text.as_bytes(), "f").unwrap().workflow;
        let specs = kobza_triggers::parse_triggers(&workflow.triggers).unwrap();
        let written = workflow.triggers.as_array().map_or(0, Vec::len);
        assert_eq!(specs.len(), written, "{}", file.display());
    }
}

/// Each file in `bad` ends with a comment block that gives the diagnostics, exactly.
#[test]
fn bad_definitions_get_exact_diagnostics() {
    let mut wrong = Vec::new();
    let renew = std::env::var_os("KOBZA_RENEW").is_some();
    for file in files("bad") {
        let text = std::fs::read_to_string(&file).unwrap();
        let (source, expected) = text.split_once("#!\n").unwrap_or((&text, ""));
        let expected: Vec<&str> =
            expected.lines().map(|l| l.trim_start_matches("#").trim_start()).collect();
        let given = match parse(source.as_bytes(), "f.yaml") {
            Ok(_) => "accepted".to_owned(),
            Err(errors) => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        };
        let given_lines: Vec<&str> = given.lines().map(str::trim_start).collect();
        if given_lines != expected {
            wrong.push(format!("{}:\n{given}\n", file.display()));
            if renew {
                let block: String = given.lines().map(|l| format!("# {l}\n")).collect();
                std::fs::write(&file, format!("{source}#!\n{block}")).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What the schema can express, it refuses too.
#[test]
fn the_schema_refuses_what_the_grammar_refuses() {
    let validator = jsonschema::validator_for(&json_schema()).unwrap();
    for file in ["unknown-field", "wrong-type", "two-kinds", "no-kind", "missing", "misplaced"] {
        let text = std::fs::read_to_string(folder("bad").join(format!("{file}.yaml"))).unwrap();
        assert!(!validator.is_valid(&as_json(&text)), "{file}");
    }
}

#[test]
fn hostile_documents_are_one_clear_error() {
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for i in 1..12 {
        let list = vec![format!("*a{}", i - 1); 10].join(",");
        bomb.push_str(&format!("a{i}: &a{i} [{list}]\n"));
    }
    let deep = format!("name: x\ntasks: {}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_maps = format!("name: {}", "{a: ".repeat(5_000));
    let many = format!("name: x\ntasks: [{}]", "1,".repeat(600_000));
    for (what, text) in [("bomb", &bomb), ("deep", &deep), ("maps", &deep_maps), ("many", &many)] {
        let errors = parse(text.as_bytes(), "f.yaml").unwrap_err();
        assert_eq!(errors.len(), 1, "{what}: {errors:?}");
        assert!(errors[0].hint.is_some(), "{what}: {errors:?}");
        assert!(errors[0].line >= 1 && errors[0].to_string().len() < 1000, "{what}: {errors:?}");
    }
}

#[test]
fn files_that_are_none_are_refused_before_parsing() {
    let dir = tempfile::tempdir().unwrap();
    let large = dir.path().join("large.yaml");
    // Sparse: it has a length but takes no room.
    std::fs::File::create(&large).unwrap().set_len(100 << 20).unwrap();
    let error = &read_file(&large).unwrap_err()[0];
    assert!(error.message.contains("has 104857600 bytes"), "{error}");
    let latin = dir.path().join("latin.yaml");
    std::fs::write(&latin, b"name: x\ndescription: caf\xe9\n").unwrap();
    let error = &read_file(&latin).unwrap_err()[0];
    assert_eq!((error.line, error.column), (2, 17));
    assert_eq!(error.message, "byte 24 (0xe9) is not UTF-8 text");
    assert!(read_file(dir.path()).unwrap_err()[0].message.contains("folder"));
    assert!(read_file(&dir.path().join("none")).unwrap_err()[0].message.contains("cannot be read"));
    let error = &parse(&vec![b'#'; (16 << 20) + 1], "x").unwrap_err()[0];
    assert!(error.message.contains("16 MiB"), "{error}");
}

#[test]
fn names_that_would_leave_their_place_are_refused() {
    let long = "n".repeat(10_000);
    for name in ["../x", "a/b", "..", "a\\0b", "a\\nb", "", " x", &long] {
        for text in [
            format!("{{\"name\": \"{name}\", \"tasks\": {{\"a\": {{\"noop\": true}}}}}}"),
            format!("{{\"name\": \"x\", \"tasks\": {{\"{name}\": {{\"noop\": true}}}}}}"),
        ] {
            let errors = parse(text.as_bytes(), "f").unwrap_err();
            assert!(!errors.is_empty() && errors[0].to_string().len() < 2000, "{name}");
        }
    }
}

#[test]
fn a_long_chain_is_fine() {
    let mut text = String::from("name: chain\ntasks:\n  t0: {noop: true}\n");
    for i in 1..5_000 {
        text.push_str(&format!("  t{i}: {{noop: true, needs: t{}}}\n", i - 1));
    }
    assert!(parse(text.as_bytes(), "f").is_ok());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(100))]

    #[test]
    fn parsing_never_panics(text in "\\PC{0,200}") {
        let _ = parse(text.as_bytes(), "f");
    }

    /// Damage to a good definition.
    #[test]
    fn damaged_definitions_never_panic(
        which in 0usize..4, at in 0usize..4000, length in 0usize..40, insert in "[ -~\n]{0,12}",
    ) {
        let file = &files("good")[which];
        let mut bytes = std::fs::read(file).unwrap();
        let at = at % bytes.len();
        let end = (at + length).min(bytes.len());
        bytes.splice(at..end, insert.bytes());
        if let Err(errors) = parse(&bytes, "f") {
            assert!(!errors.is_empty());
            for error in errors {
                assert!(error.line >= 1 && error.column >= 1);
            }
        }
    }
}
