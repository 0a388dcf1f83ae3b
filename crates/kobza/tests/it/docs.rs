//! Every YAML block of the documentation is good.

use crate::machine::{Folder, text};

#[test]
fn yaml_of_the_documentation_is_good() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = Folder::new();
    let mut count = 0;
    for page in ["README.md", "docs/workflows.md"] {
        let page = std::fs::read_to_string(root.join(page)).unwrap();
        for block in page.split("```yaml\n").skip(1) {
            let source = block.split("```").next().unwrap();
            folder.write(&format!("doc{count}.yaml"), source);
            count += 1;
        }
    }
    assert!(count > 5);
    let output = folder.kobza(&["check", "."]);
    assert!(output.status.success(), "{}", text(&output.stderr));
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
        let output = folder.kobza(&["run", &name]);
        assert!(output.status.success(), "{block}\n{}", text(&output.stderr));
    }
}
