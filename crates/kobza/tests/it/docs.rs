//! Every snippet of the documentation works: YAML is checked, shell is run against a real server.
//! A block that cannot be run says why: `<!-- not run: ... -->` on the line before it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine::{Folder, Server, text};

/// Pages whose shell blocks are run from top to bottom, each page in a folder and with a server of
/// its own.
const RUN: [&str; 6] =
    ["get-started.md", "cli.md", "api.md", "security.md", "concepts.md", "triggers.md"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Pages by name, the README first.
fn pages() -> Vec<(String, String)> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(root().join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
        .collect();
    files.sort();
    files.insert(0, root().join("README.md"));
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    files.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect()
}

/// Blocks of a language, without those that are marked as not to be run.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let (mut found, mut open, mut skip) = (Vec::new(), None::<String>, false);
    for line in page.lines() {
        match &mut open {
            Some(block) if line == "```" => {
                let block = std::mem::take(block);
                if !skip {
                    found.push(block);
                }
                (open, skip) = (None, false);
            }
            Some(block) => *block += &format!("{line}\n"),
            None if line == format!("```{language}") => open = Some(String::new()),
            None => skip = line.starts_with("<!-- not run: "),
        }
    }
    found
}

#[test]
fn workflows_of_the_documentation_are_good() {
    let folder = Folder::new();
    let mut count = 0;
    for (_, page) in pages() {
        // Settings of other programs are YAML too.
        for block in blocks(&page, "yaml").iter().filter(|b| b.contains("\ntasks:")) {
            folder.write(&format!("doc{count}.yaml"), block);
            count += 1;
        }
    }
    assert!(count > 8);
    let output = folder.kobza(&["check", "."]);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn shell_of_the_documentation_works() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("skipped: curl is not installed");
        return;
    }
    let mut count = 0;
    for (name, page) in pages().into_iter().filter(|(name, _)| RUN.contains(&name.as_str())) {
        let blocks = blocks(&page, "sh");
        if blocks.is_empty() {
            continue;
        }
        count += blocks.len();
        let folder = Folder::new();
        let server = Server::start(&folder);
        let binary = Path::new(env!("CARGO_BIN_EXE_kobza")).parent().unwrap();
        let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
        let script = blocks.join("\n").replace("http://127.0.0.1:8470", &server.url);
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &script])
            .current_dir(folder.path())
            .env("PATH", path)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{name}: {}\n{}",
            text(&output.stdout),
            text(&output.stderr)
        );
    }
    assert!(count >= 3);
}

#[test]
fn links_of_the_documentation_lead_somewhere() {
    for (name, page) in pages() {
        let folder = if name == "README.md" && page.starts_with("# Kobza") {
            root()
        } else {
            root().join("docs")
        };
        for link in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap();
            if target.is_empty() || target.contains(':') {
                continue;
            }
            assert!(folder.join(target).exists(), "{name}: {link} leads nowhere");
        }
    }
}

#[test]
fn the_schema_is_json_schema() {
    let schema = Folder::new().json(&["schema"]);
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
}

#[test]
fn the_description_of_the_api_is_the_one_checked_in() {
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    let output = Folder::new().kobza(&["schema", "openapi"]);
    assert_eq!(text(&output.stdout), std::fs::read_to_string(kept).unwrap());
}

#[test]
fn python_of_the_documentation_runs() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/python.md")).unwrap();
    let folder = Folder::new();
    let blocks: Vec<&str> =
        page.split("```python\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() > 3);
    for (number, block) in blocks.into_iter().enumerate() {
        let name = format!("doc{number}.py");
        // A test of the page is a workflow's check here.
        let calls = if block.contains("def test_flow") { "\n\ntest_flow()\n" } else { "" };
        folder.write(&name, format!("{block}{calls}"));
        let assets = block.contains("= assets(");
        let output = if assets || block.contains("@workflow") {
            let mut args = vec!["run", name.as_str()];
            if assets {
                args.extend(["--partition", "2013-01-05"]);
            }
            let mut command = folder.command(&args);
            // What the page says of values without a server.
            command.envs([
                ("KOBZA_SECRET_API_TOKEN", "a token"),
                ("KOBZA_VARIABLE_REGION", "eu"),
                ("KOBZA_CONNECTION_WAREHOUSE", r#"{"url": "sqlite:w.db"}"#),
            ]);
            command.output().unwrap()
        } else {
            // A script: it would need the page's server.
            let mut command = Command::new("python3");
            command.args(["-m", "py_compile", &name]).current_dir(folder.path()).output().unwrap()
        };
        assert!(output.status.success(), "{block}\n{}", text(&output.stderr));
    }
}
