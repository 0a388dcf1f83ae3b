//! What workflows do, with scripted bodies.

use std::sync::{Arc, Mutex};

use kobza_dialect_argo::exec::Report as Ended;
use kobza_dialect_argo::{CompileOptions, ExecSpec, compile};
use kobza_engine::StopMode;
use serde_json::json;

use crate::driver::{Driver, ok, read};

fn run(text: &str, body: impl FnMut(&ExecSpec) -> Ended + 'static) -> Driver {
    let (shelf, object) = read(text);
    let mut driver = Driver::new(shelf, &object, &[], Box::new(body));
    driver.go();
    driver
}

/// Puts out its first argument as result and as the parameter `out`.
fn echo(spec: &ExecSpec) -> Ended {
    let text = spec.template["container"]["args"][0].clone();
    let mut ended = ok();
    if spec.result {
        ended.outputs.insert("result".to_owned(), text.clone());
    }
    ended.outputs.insert("parameters".to_owned(), json!({ "out": text }));
    ended
}

fn phases(driver: &Driver) -> Vec<String> {
    driver
        .nodes()
        .into_iter()
        .map(|(name, (phase, kind))| format!("{name} {kind} {phase}"))
        .collect()
}

#[test]
fn loops_are_named_and_gathered() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let driver = run(
        r#"
kind: Workflow
metadata: {name: wf}
spec:
  entrypoint: main
  templates:
  - name: main
    steps:
    - - name: each
        template: say
        arguments: {parameters: [{name: text, value: "{{item.n}}"}]}
        withItems: [{n: 1, z: a}, {n: "[2]"}, {n: x}]
    - - name: all
        template: say
        arguments:
          parameters:
          - {name: text, value: "{{steps.each.outputs.parameters.out}} {{steps.each.outputs.result}} {{steps.each.outputs.parameters}}"}
  - name: say
    inputs: {parameters: [{name: text}]}
    container: {image: x, command: [echo], args: ["{{inputs.parameters.text}}"]}
    outputs: {parameters: [{name: out, valueFrom: {path: /tmp/x}}]}
"#,
        move |spec| {
            log.lock().expect("a log").push(spec.template["container"]["args"][0].clone());
            echo(spec)
        },
    );
    assert_eq!(driver.phase(), "Succeeded");
    let seen = seen.lock().expect("a log");
    assert_eq!(
        seen[3],
        json!(r#"["1","[2]","x"] [1,[2],"x"] [{"out":"1"},{"out":"[2]"},{"out":"x"}]"#)
    );
    assert_eq!(
        phases(&driver),
        [
            "wf Steps Succeeded",
            "wf[0] StepGroup Succeeded",
            "wf[0].each(0:n:1,z:a) Pod Succeeded",
            "wf[0].each(1:n:[2]) Pod Succeeded",
            "wf[0].each(2:n:x) Pod Succeeded",
            "wf[1] StepGroup Succeeded",
            "wf[1].all Pod Succeeded",
        ]
    );
    let nodes = kobza_dialect_argo::nodes(&driver.data());
    let by_name = |name: &str| {
        nodes.values().find(|n| n["name"] == name).unwrap_or_else(|| panic!("{name} is shown"))
    };
    let last = by_name("wf[0].each(2:n:x)");
    assert_eq!(last["children"], json!([by_name("wf[1]")["id"]]));
    assert_eq!(last["boundaryID"], "wf");
    assert_eq!(by_name("wf")["outboundNodes"], json!([by_name("wf[1].all")["id"]]));
    assert_eq!(by_name("wf[1].all")["displayName"], "all");
    assert_eq!(by_name("wf[1].all")["templateScope"], "local/wf");
}

#[test]
fn values_are_never_expanded_again() {
    let evil = r#"{{workflow.name}} {{=1+1}} "quoted" \n newline
 $(touch /tmp/x)"#;
    let (shelf, object) = read(
        r#"
kind: Workflow
metadata: {generateName: wf-}
spec:
  entrypoint: main
  arguments: {parameters: [{name: p}]}
  templates:
  - name: main
    inputs: {parameters: [{name: p}]}
    dag:
      tasks:
      - name: a
        template: say
        arguments: {parameters: [{name: text, value: "{{inputs.parameters.p}}"}]}
  - name: say
    inputs: {parameters: [{name: text}]}
    container: {image: x, command: [echo], args: ["<{{inputs.parameters.text}}>"]}
"#,
    );
    let seen = Arc::new(Mutex::new(String::new()));
    let log = seen.clone();
    let body = Box::new(move |spec: &ExecSpec| {
        *log.lock().expect("a log") =
            spec.template["container"]["args"][0].as_str().expect("a text").to_owned();
        ok()
    });
    let mut driver = Driver::new(shelf, &object, &[("p", evil)], body);
    driver.go();
    assert_eq!(driver.phase(), "Succeeded");
    assert_eq!(*seen.lock().expect("a log"), format!("<{evil}>"));
}

#[test]
fn retries_follow_the_strategy() {
    let text = |strategy: &str| {
        format!(
            "kind: Workflow\nmetadata: {{name: wf}}\nspec:\n  entrypoint: main\n  templates:\n  \
             - name: main\n    retryStrategy: {strategy}\n    container: {{image: x, command: [x], \
             args: ['{{{{retries}}}}']}}\n"
        )
    };
    for (strategy, codes, phase, nodes) in [
        ("{limit: 2}", vec![1, 1, 1, 0], "Failed", 3),
        ("{limit: '3'}", vec![1, 1, 0], "Succeeded", 3),
        ("{limit: 5, retryPolicy: OnError}", vec![1, 0], "Failed", 1),
        ("{limit: 5, expression: 'asInt(lastRetry.exitCode) == 2'}", vec![2, 2, 3, 0], "Failed", 3),
        (
            "{limit: 5, backoff: {duration: 1m, factor: 2, maxDuration: 2m}}",
            vec![1; 6],
            "Failed",
            2,
        ),
    ] {
        let mut left = codes.clone().into_iter();
        let driver = run(&text(strategy), move |_| Ended {
            exit_code: left.next().expect("no more attempts"),
            ..Ended::default()
        });
        assert_eq!(driver.phase(), phase, "{strategy}");
        let attempts = driver.nodes().values().filter(|(_, kind)| kind == "Pod").count();
        assert_eq!(attempts, nodes, "{strategy}: {:?}", driver.nodes());
        assert_eq!(driver.nodes()["wf"].1, "Retry");
    }
}

#[test]
fn hooks_and_exit_handlers_run_once() {
    let driver = run(
        r#"
kind: Workflow
metadata: {name: wf}
spec:
  entrypoint: main
  onExit: bye
  hooks:
    started: {template: note, expression: workflow.status == "Running"}
    failed: {template: note, expression: workflow.status == "Failed"}
  templates:
  - name: main
    dag:
      tasks:
      - name: a
        template: bad
        hooks:
          exit: {template: note}
          running: {template: note, expression: tasks.a.status == "Running"}
          failed: {template: note, expression: tasks.a.status == "Failed"}
          fine: {template: note, expression: tasks.a.status == "Succeeded"}
      - {name: b, template: note, depends: a.Failed}
      - {name: c, template: note, depends: a}
  - {name: bad, container: {image: x, command: [bad]}}
  - {name: note, container: {image: x, command: [note]}}
  - {name: bye, container: {image: x, command: [bye], args: ["{{workflow.status}}"]}}
"#,
        |spec| {
            let command = &spec.template["container"]["command"][0];
            if command == "bye" {
                assert_eq!(spec.template["container"]["args"][0], "Failed");
            }
            Ended { exit_code: i32::from(command == "bad"), ..Ended::default() }
        },
    );
    assert_eq!(
        phases(&driver),
        [
            "wf DAG Failed",
            "wf.a Pod Failed",
            "wf.a.hooks.failed Pod Succeeded",
            "wf.a.hooks.running Pod Succeeded",
            "wf.a.onExit Pod Succeeded",
            "wf.b Pod Succeeded",
            "wf.c Skipped Omitted",
            "wf.hooks.failed Pod Succeeded",
            "wf.hooks.started Pod Succeeded",
            "wf.onExit Pod Succeeded",
        ]
    );
    assert_eq!(driver.phase(), "Failed");
}

#[test]
fn recursion_ends() {
    let driver = run(
        r"
kind: Workflow
metadata: {name: wf}
spec:
  entrypoint: main
  templates:
  - name: main
    steps: [[{name: again, template: main}]]
",
        |_| ok(),
    );
    assert_eq!(driver.phase(), "Failed");
    let data = driver.data();
    assert!(
        data.tasks.iter().any(|t| t
            .message
            .as_deref()
            .is_some_and(|m| m.contains("Maximum recursion depth exceeded"))),
        "it says why"
    );
}

#[test]
fn countdown_recursion_works() {
    let driver = run(
        r#"
kind: Workflow
metadata: {name: wf}
spec:
  entrypoint: main
  arguments: {parameters: [{name: left, value: 3}]}
  templates:
  - name: main
    inputs: {parameters: [{name: left}]}
    steps:
    - - name: again
        template: main
        when: "{{inputs.parameters.left}} > 0"
        arguments: {parameters: [{name: left, value: "{{=asInt(inputs.parameters.left) - 1}}"}]}
"#,
        |_| ok(),
    );
    assert_eq!(driver.phase(), "Succeeded", "{:#?}", driver.data().tasks);
    assert_eq!(driver.nodes().values().filter(|(_, kind)| kind == "Steps").count(), 4);
}

#[test]
fn an_endless_sequence_is_refused() {
    let driver = run(
        r"
kind: Workflow
metadata: {name: wf}
spec:
  entrypoint: main
  templates:
  - name: main
    steps: [[{name: a, template: leaf, withSequence: {count: 1000000000}}]]
  - {name: leaf, container: {image: x, command: [x]}}
",
        |_| panic!("nothing may run"),
    );
    assert_eq!(driver.phase(), "Failed");
    let messages = format!("{:?}", driver.data().tasks);
    assert!(messages.contains("a loop has at most 1000000 items"), "{messages}");
}

#[test]
fn memoized_results_are_taken() {
    let count = Arc::new(Mutex::new(0));
    let seen = count.clone();
    let driver = run(
        r#"
kind: Workflow
metadata: {name: wf}
spec:
  entrypoint: main
  templates:
  - name: main
    steps:
    - [{name: a, template: m}]
    - [{name: between, template: other}]
    - [{name: b, template: m}]
    - - name: c
        template: say
        arguments: {parameters: [{name: text, value: "{{steps.b.outputs.parameters.out}}"}]}
  - name: m
    memoize: {key: "k", maxAge: 1h, cache: {configMap: {name: c}}}
    container: {image: x, command: [x], args: [v]}
    outputs: {parameters: [{name: out, valueFrom: {path: /x}}]}
  - {name: other, container: {image: x, command: [x], args: [other]}}
  - name: say
    inputs: {parameters: [{name: text}]}
    container: {image: x, command: [x], args: ["{{inputs.parameters.text}}"]}
"#,
        move |spec| {
            *seen.lock().expect("a count") += 1;
            echo(spec)
        },
    );
    assert_eq!(driver.phase(), "Succeeded");
    assert_eq!(*count.lock().expect("a count"), 3, "m ran once");
    let nodes = kobza_dialect_argo::nodes(&driver.data());
    let b = nodes.values().find(|n| n["name"] == "wf[2].b").expect("b");
    assert_eq!(b["memoizationStatus"], json!({ "hit": true, "cacheName": "c", "key": "k" }));
}

#[test]
fn stopping_runs_exit_handlers_and_terminating_does_not() {
    let text = r"
kind: Workflow
metadata: {name: wf}
spec:
  entrypoint: main
  onExit: bye
  templates:
  - {name: main, container: {image: x, command: [long]}}
  - {name: bye, container: {image: x, command: [bye]}}
";
    for (mode, exits) in [(StopMode::Stop, true), (StopMode::Terminate, false)] {
        let (shelf, object) = read(text);
        let mut driver = Driver::new(shelf, &object, &[], Box::new(|_| ok()));
        driver.stop_after = Some(("wf".to_owned(), mode));
        driver.go();
        assert_eq!(driver.phase(), "Failed");
        assert_eq!(driver.nodes().contains_key("wf.onExit"), exits, "{mode:?}");
    }
}

#[test]
fn definitions_are_refused_with_a_path() {
    let spec = |rest: &str| {
        format!(
            "kind: Workflow\nmetadata: {{name: wf}}\nspec:\n  entrypoint: main\n  templates:\n{rest}"
        )
    };
    for (text, part) in [
        (spec("  - {name: other, container: {image: x}}"), "template name 'main' undefined"),
        (spec("  - {name: main}"), "templates.main template type is unspecified"),
        (
            spec("  - {name: main, container: {image: x}, suspend: {}}"),
            "templates.main multiple template types specified",
        ),
        (
            spec("  - name: main\n    steps: [[{name: a, template: gone}]]"),
            "templates.main.steps[0].a template name 'gone' undefined",
        ),
        (
            spec(
                "  - name: main\n    steps: [[{name: a, template: main}, {name: a, template: main}]]",
            ),
            "templates.main.steps[0].a name is not unique",
        ),
        (
            spec("  - name: main\n    dag: {tasks: [{name: a, template: main, depends: b}]}"),
            "templates.main.tasks.a dependency 'b' not defined",
        ),
        (
            spec("  - name: main\n    dag: {target: z, tasks: [{name: a, template: main}]}"),
            "templates.main.targets target 'z' is not defined",
        ),
        (
            spec(
                "  - name: main\n    dag: {tasks: [{name: a, template: main, hooks: {h: {template: main}}}]}",
            ),
            "Expression required",
        ),
    ] {
        let (shelf, object) = read(&text);
        let options = CompileOptions::default();
        let error = compile(&object, &shelf, &options).expect_err(&text).to_string();
        assert!(error.contains(part), "{text}\n{error}");
    }
}

#[test]
fn files_are_refused_with_line_and_column() {
    for (text, part) in [
        ("kind: Workflow\nspec: []", "2:7: spec must be a mapping"),
        ("kind: Pod\nspec: {}", "\"Pod\" is not a kind that can run here"),
        ("a: [", "1:"),
        (
            "kind: Workflow\nspec:\n  templates:\n  - steps: [7]",
            "4:13: spec.templates[0].steps[0] must be a list of steps",
        ),
        (
            "kind: Workflow\nspec:\n  arguments:\n    parameters: [{name: a, value: {b: 1}}]",
            "must be a string, number or boolean",
        ),
        ("- 1", "must be a mapping"),
    ] {
        let errors = kobza_dialect_argo::parse(text).expect_err(text);
        let all: String = errors.iter().map(|e| format!("{e}\n")).collect();
        assert!(all.contains(part), "{text}: {all}");
    }
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n";
    assert!(kobza_dialect_argo::parse(bomb).is_err(), "a YAML bomb");
    let deep = format!("a: {}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(kobza_dialect_argo::parse(&deep).is_err(), "deep nesting");
}
