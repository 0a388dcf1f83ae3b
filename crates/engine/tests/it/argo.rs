//! Argo's shapes: `depends`, recursion, retried composites, fail-fast, daemons, suspension.

use kobza_engine::{Command, Decision, EngineOptions, Question, QuestionKind};
use kobza_model::*;

use crate::harness::*;

fn is(node: u32, what: &str) -> Tree {
    use Outcome::{Failed, Skipped, Succeeded};
    let (quantifier, outcomes, causes, except_causes, or_daemon) = match what {
        "Succeeded" => (Quantifier::Summary, vec![Succeeded], vec![], vec![], false),
        "Failed" => (Quantifier::Summary, vec![Failed], vec![], vec![Cause::Infrastructure], false),
        "Errored" => {
            (Quantifier::Summary, vec![Failed], vec![Cause::Infrastructure], vec![], false)
        }
        "Skipped" => (Quantifier::Summary, vec![Skipped], vec![], vec![Cause::Gate], false),
        "Omitted" => (Quantifier::Summary, vec![Skipped], vec![Cause::Gate], vec![], false),
        "Daemoned" => (Quantifier::Summary, vec![], vec![], vec![], true),
        "AnySucceeded" => (Quantifier::AnyInstance, vec![Succeeded], vec![], vec![], false),
        "AllFailed" => (Quantifier::AllInstances, vec![Failed], vec![], vec![], false),
        other => panic!("no predicate {other}"),
    };
    Tree::Is(Predicate {
        node: NodeNo(node),
        quantifier,
        outcomes,
        causes,
        except_causes,
        or_daemon,
    })
}

/// What a name alone means in `depends`.
fn bare(node: u32) -> Tree {
    Tree::Any(vec![is(node, "Succeeded"), is(node, "Skipped"), is(node, "Daemoned")])
}

fn depends(name: &str, tree: Tree) -> Node {
    Node { gate: Gate::Logical(tree), call: TemplateNo(1), ..node(name) }
}

const WORDS: [&str; 6] = ["Succeeded", "Failed", "Errored", "Skipped", "Omitted", "Daemoned"];

/// The shapes of two-place expressions, with what they mean.
type Shape = (&'static str, fn(Tree, Tree) -> Tree, fn(bool, bool) -> bool);
#[allow(clippy::nonminimal_bool, reason = "each function is its expression, word for word")]
const SHAPES: [Shape; 4] = [
    ("a && b", |a, b| Tree::All(vec![a, b]), |a, b| a && b),
    ("a || !b", |a, b| Tree::Any(vec![a, Tree::Not(Box::new(b))]), |a, b| a || !b),
    ("!(a && b)", |a, b| Tree::Not(Box::new(Tree::All(vec![a, b]))), |a, b| !(a && b)),
    (
        "!a && (a || b)",
        |a, b| Tree::All(vec![Tree::Not(Box::new(a.clone())), Tree::Any(vec![a, b])]),
        |a, b| !a && (a || b),
    ),
];

#[test]
pub(crate) fn depends_truth_tables() {
    for a in WORDS {
        for b in WORDS {
            let upstream = |name: &str, word: &str| match word {
                "Skipped" => Node { guard: true, ..node(name) },
                "Omitted" => Node { gate: Gate::Logical(Tree::Any(vec![])), ..node(name) },
                "Daemoned" => Node { daemon: true, ..node(name) },
                _ => node(name),
            };
            let mut nodes = vec![upstream("a", a), upstream("b", b)];
            for (shape, tree, _) in SHAPES {
                for x in WORDS {
                    for y in WORDS {
                        nodes.push(depends(&format!("{shape} {x} {y}"), tree(is(0, x), is(1, y))));
                    }
                }
            }
            nodes.push(depends("bare", Tree::All(vec![bare(0), bare(1)])));
            let mut bench = Bench::new(workflow(nodes, vec![]));
            // Guards are asked at the start: this harness answers them with run, so skip by hand.
            for (name, word) in [("a", a), ("b", b)] {
                let pending = SHAPES.iter().all(|(shape, ..)| {
                    bench.states()[&format!("{shape} Succeeded Succeeded")] == TaskState::Pending
                });
                assert!(pending || name == "b" || a == "Omitted", "{a} {b}: decided too early");
                match word {
                    "Succeeded" => bench.ends(name, Outcome::Succeeded),
                    "Failed" => bench.ends(name, Outcome::Failed),
                    "Errored" => {
                        let id = bench.launch_of(name);
                        bench.launched.retain(|l| l.id != id);
                        bench.end(id, Outcome::Failed, Cause::Infrastructure);
                    }
                    "Skipped" => {
                        let id = bench.launch_of(name);
                        bench.launched.retain(|l| l.id != id);
                        bench.end(id, Outcome::Skipped, Cause::Guard);
                    }
                    "Daemoned" => bench.started(name),
                    _ => assert_eq!(bench.states()[name], TaskState::Skipped),
                }
            }
            let states = bench.states();
            for (shape, _, means) in SHAPES {
                for x in WORDS {
                    for y in WORDS {
                        let expected = if means(x == a, y == b) {
                            TaskState::Succeeded
                        } else {
                            TaskState::Skipped
                        };
                        assert_eq!(
                            states[&format!("{shape} {x} {y}")],
                            expected,
                            "{a} {b}: {shape} {x} {y}"
                        );
                    }
                }
            }
            let good = |w| matches!(w, "Succeeded" | "Skipped" | "Daemoned");
            let expected =
                if good(a) && good(b) { TaskState::Succeeded } else { TaskState::Skipped };
            assert_eq!(states["bare"], expected, "{a} {b}");
            bench.go();
            assert!(bench.state().is_finished(), "{a} {b}: {:?}", bench.states());
        }
    }
}

#[test]
pub(crate) fn guard_skips_count_as_skipped_not_omitted() {
    let nodes = vec![
        Node { guard: true, ..node("a") },
        depends("skipped", is(0, "Skipped")),
        depends("omitted", is(0, "Omitted")),
    ];
    let mut bench = Bench::new(workflow(vec![node("x")], vec![]));
    bench.decide =
        Box::new(|_: &Question, _| Decision::Skip { cause: Cause::Guard, message: None });
    bench.start(workflow(nodes, vec![]), 2);
    assert_eq!(bench.states()["skipped"], TaskState::Succeeded);
    assert_eq!(bench.states()["omitted"], TaskState::Skipped);
}

#[test]
pub(crate) fn any_succeeded_and_all_failed_speak_of_instances() {
    for bits in 0..8u32 {
        let nodes = vec![
            Node { expansion: mapped(3), ..node("m") },
            depends("any", is(0, "AnySucceeded")),
            depends("all", is(0, "AllFailed")),
        ];
        let mut bench = Bench::new(workflow(nodes, vec![]));
        for i in 0..3 {
            assert_eq!(bench.states()["any"], TaskState::Pending);
            let good = bits & (1 << i) != 0;
            bench.ends(&format!("m[{i}]"), if good { Outcome::Succeeded } else { Outcome::Failed });
        }
        let ran = |yes: bool| if yes { TaskState::Succeeded } else { TaskState::Skipped };
        assert_eq!(bench.states()["any"], ran(bits != 0), "{bits}");
        assert_eq!(bench.states()["all"], ran(bits == 0), "{bits}");
    }
    // On a node that is not expanded both are false.
    let nodes = vec![node("m"), depends("any", is(0, "AnySucceeded"))];
    let mut bench = Bench::new(workflow(nodes, vec![]));
    bench.go();
    assert_eq!(bench.states()["any"], TaskState::Skipped);
}

#[test]
pub(crate) fn recursion_ends_at_the_depth_limit() {
    let again =
        graph("again", vec![node("x"), Node { call: TemplateNo(3), ..needs("deeper", &[0]) }]);
    let definition = workflow(vec![Node { call: TemplateNo(3), ..node("top") }], vec![again]);
    let options = EngineOptions { depth: 5, ..EngineOptions::default() };
    let mut bench = Bench::with(definition, options);
    bench.go();
    assert_eq!(bench.state(), RunState::Failed);
    let message = bench.engine.run_row(bench.run).unwrap().message.clone().unwrap();
    assert!(message.ends_with("graphs call graphs more than 5 levels deep"), "{message}");
    let bodies = bench.engine.task_rows(bench.run).iter().filter(|t| t.name == "x").count();
    assert_eq!(bodies, 5);
    assert_eq!(bench.named("deeper").cause, Cause::Limit);
}

#[test]
pub(crate) fn recursion_that_stops_by_its_condition_succeeds() {
    let again = graph(
        "again",
        vec![node("x"), Node { call: TemplateNo(3), guard: true, ..needs("deeper", &[0]) }],
    );
    let mut bench = Bench::new(workflow(vec![node("idle")], vec![]));
    let mut calls = 0;
    bench.decide = Box::new(move |_, _| {
        calls += 1;
        if calls < 4 {
            Decision::Run { inputs: Json::Null }
        } else {
            Decision::Skip { cause: Cause::Guard, message: None }
        }
    });
    bench.start(workflow(vec![Node { call: TemplateNo(3), ..node("top") }], vec![again]), 2);
    bench.go();
    assert_eq!(bench.state(), RunState::Succeeded);
    assert_eq!(bench.engine.task_rows(bench.run).iter().filter(|t| t.name == "x").count(), 4);
}

#[test]
pub(crate) fn mapped_composites_retry_each_on_its_own() {
    let inner = graph("inner", vec![node("x"), needs("y", &[0])]);
    let call = Node { call: TemplateNo(3), retry: retry(2), expansion: mapped(3), ..node("c") };
    let definition = workflow(vec![call, needs("z", &[0])], vec![inner]);
    let mut bench = Bench::new(definition.clone());
    let mut failures = 0;
    bench.script = Box::new(move |name, _| {
        if name == "y" && failures < 4 {
            failures += 1;
            (Outcome::Failed, Cause::Code)
        } else {
            (Outcome::Succeeded, Cause::None)
        }
    });
    bench.go();
    assert_eq!(bench.state(), RunState::Succeeded, "{:?}", bench.states());
    let attempts: u32 = (0..3).map(|i| bench.named(&format!("c[{i}]")).attempt).sum();
    assert_eq!(attempts, 3 + 4);
    // Out of attempts: the composite fails, and says which of its tasks did.
    let mut bench = Bench::new(definition);
    bench.script = fails(&["y"]);
    bench.go();
    assert_eq!(bench.state(), RunState::Failed);
    assert_eq!(bench.named("c[1]").attempt, 3);
    assert_eq!(bench.named("c[1]").message.as_deref(), Some("y failed"));
    assert_eq!(bench.states()["z"], TaskState::UpstreamFailed);
}

#[test]
pub(crate) fn fail_fast_kills_what_runs_and_skips_what_waits() {
    let mut definition = workflow(vec![node("a"), node("b"), needs("c", &[1]), node("d")], vec![]);
    graph_of(&mut definition, 2).verdict.fail_fast = true;
    let mut bench = Bench::with(definition, EngineOptions { slots: 2, ..EngineOptions::default() });
    bench.started("a");
    bench.started("b");
    bench.ends("a", Outcome::Failed);
    assert_eq!(bench.states()["c"], TaskState::Skipped);
    assert_eq!(bench.states()["b"], TaskState::Cancelling);
    assert_eq!(bench.states()["d"], TaskState::Skipped);
    assert_eq!(bench.state(), RunState::Running);
    bench.go();
    assert_eq!(bench.named("b").cause, Cause::FailFast);
    assert_eq!(bench.state(), RunState::Failed);
    assert_eq!(bench.engine.run_row(bench.run).unwrap().message.as_deref(), Some("a failed"));
}

#[test]
pub(crate) fn fail_fast_of_an_expansion_ends_the_others() {
    let mut map = mapped(10);
    if let Some(map) = map.as_mut() {
        map.fail_fast = true;
        map.window = Some(3);
    }
    let mut bench =
        Bench::new(workflow(vec![Node { expansion: map, ..node("m") }, needs("z", &[0])], vec![]));
    bench.started("m[0]");
    bench.ends("m[1]", Outcome::Failed);
    bench.go();
    assert_eq!(bench.state(), RunState::Failed);
    assert_eq!(bench.states()["m[0]"], TaskState::Cancelled);
    assert_eq!(bench.states()["z"], TaskState::UpstreamFailed);
    let counts = &bench.engine.run_row(bench.run).unwrap().counts;
    assert_eq!(counts.iter().sum::<u32>(), 11);
    assert_eq!(counts[TaskState::Pending as usize], 0);
}

#[test]
pub(crate) fn continue_on_counts_for_the_verdict_not_for_gates() {
    let tolerant = Node { continue_on: vec![Outcome::Failed], ..node("a") };
    let mut definition = workflow(vec![tolerant, node("b")], vec![]);
    let mut bench = Bench::new(definition.clone());
    bench.script = fails(&["a"]);
    bench.go();
    assert_eq!(bench.states()["a"], TaskState::Failed);
    assert_eq!(bench.state(), RunState::Succeeded);
    graph_of(&mut definition, 2).verdict.fail_fast = true;
    let mut bench = Bench::new(definition);
    bench.script = fails(&["a"]);
    bench.go();
    assert_eq!(bench.states()["b"], TaskState::Succeeded, "it does not fail early either");
    assert_eq!(bench.state(), RunState::Succeeded);
}

#[test]
pub(crate) fn an_omitted_leaf_stands_for_the_failure_that_omitted_it() {
    for (inherit, failing, expected) in [
        (true, "a", RunState::Failed),
        (false, "a", RunState::Succeeded),
        (true, "", RunState::Succeeded),
    ] {
        let mut definition = workflow(
            vec![
                node("a"),
                depends("b", is(0, "Succeeded")),
                depends("c", bare(1)),
                depends("on failure", is(0, "Failed")),
            ],
            vec![],
        );
        graph_of(&mut definition, 2).verdict.inherit_omitted = inherit;
        let mut bench = Bench::new(definition);
        bench.ends("a", if failing == "a" { Outcome::Failed } else { Outcome::Succeeded });
        bench.go();
        assert_eq!(bench.state(), expected, "{inherit} {failing:?}");
    }
}

#[test]
pub(crate) fn a_daemon_serves_its_readers_and_ends_with_its_scope() {
    let daemon = Node { daemon: true, retry: retry(3), ..node("server") };
    let definition = workflow(vec![daemon, depends_on_daemon("client")], vec![]);
    let mut bench = Bench::new(definition.clone());
    assert_eq!(bench.states()["client"], TaskState::Pending);
    bench.started("server");
    let server = bench.launch_of("server");
    bench.started("client");
    bench.ends("client", Outcome::Succeeded);
    assert_eq!(bench.killed, vec![server]);
    bench.go();
    assert_eq!(bench.states()["server"], TaskState::Succeeded);
    assert_eq!(bench.state(), RunState::Succeeded);

    // After a restart it still counts as up.
    let mut bench = Bench::new(definition.clone());
    bench.started("server");
    bench.started("client");
    bench.restart(&definition, EngineOptions::default());
    bench.ends("client", Outcome::Succeeded);
    let server = bench.launch_of("server");
    assert_eq!(bench.killed, vec![server]);
    bench.restart(&definition, EngineOptions::default());
    bench.go();
    assert_eq!(bench.states()["server"], TaskState::Succeeded);
    assert_eq!(bench.state(), RunState::Succeeded);

    // Lost or failed while up: it is down until it runs again, and the scope waits for that.
    for lost in [true, false] {
        let mut bench = Bench::new(definition.clone());
        bench.started("server");
        if lost {
            let server = bench.launch_of("server");
            bench.report(server, kobza_engine::ReportBody::Lost { message: "gone".to_owned() });
        } else {
            bench.ends("server", Outcome::Failed);
            bench.after(0);
        }
        bench.launched.clear();
        bench.ends("client", Outcome::Succeeded);
        assert_eq!(bench.state(), RunState::Running);
        bench.started("server");
        let server = bench.launch_of("server");
        assert_eq!(bench.killed, vec![server]);
        bench.go();
        assert_eq!(bench.state(), RunState::Succeeded);
    }
}

/// Three groups in a row: a server, two clients of it, and a last one.
fn groups_with_a_daemon() -> Workflow {
    let server = Node { daemon: true, retry: retry(1), ..node("server") };
    let up = Tree::Is(Predicate {
        node: NodeNo(0),
        quantifier: Quantifier::Summary,
        outcomes: vec![Outcome::Succeeded],
        causes: vec![],
        except_causes: vec![],
        or_daemon: true,
    });
    let groups = vec![
        Node { daemon: true, call: TemplateNo(4), ..node("first") },
        Node { call: TemplateNo(5), gate: Gate::Logical(up), ..needs("second", &[0]) },
        Node { call: TemplateNo(6), ..needs("third", &[1]) },
    ];
    let mut definition = workflow(
        vec![Node { call: TemplateNo(3), ..node("steps") }],
        vec![
            graph("steps", groups),
            graph("first", vec![server, node("beside")]),
            graph("second", vec![node("a"), node("b")]),
            graph("third", vec![node("c")]),
        ],
    );
    // As steps are judged: whole.
    for template in 3..=6 {
        graph_of(&mut definition, template).verdict.set = VerdictSet::All;
    }
    definition
}

#[test]
pub(crate) fn a_daemon_of_a_group_lives_until_the_groups_have_ended() {
    let definition = groups_with_a_daemon();
    let mut bench = Bench::new(definition.clone());
    bench.started("server");
    assert!(!bench.states().contains_key("a"), "the group waits for its other task");
    bench.ends("beside", Outcome::Succeeded);
    assert_eq!(bench.states()["first"], TaskState::Running);
    bench.ends("a", Outcome::Succeeded);
    let server = bench.launch_of("server");
    // After a restart the group is still up, and what comes next still runs.
    bench.restart(&definition, EngineOptions::default());
    bench.ends("b", Outcome::Succeeded);
    assert!(bench.killed.is_empty());
    bench.ends("c", Outcome::Succeeded);
    assert_eq!(bench.killed, vec![server]);
    assert_eq!(bench.states()["steps"], TaskState::Running);
    bench.go();
    for name in ["server", "first", "steps"] {
        assert_eq!(bench.states()[name], TaskState::Succeeded, "{name}");
    }
    assert_eq!(bench.state(), RunState::Succeeded);

    // Lost in between: what is behind it goes on, and the end waits until it is back.
    let mut bench = Bench::new(definition.clone());
    bench.started("server");
    let server = bench.launch_of("server");
    bench.ends("beside", Outcome::Succeeded);
    bench.report(server, kobza_engine::ReportBody::Lost { message: "gone".to_owned() });
    for name in ["a", "b", "c"] {
        bench.ends(name, Outcome::Succeeded);
    }
    assert_eq!(bench.state(), RunState::Running);
    bench.started("server");
    assert_eq!(bench.killed, vec![bench.launch_of("server")]);
    bench.go();
    assert_eq!(bench.state(), RunState::Succeeded);
}

#[test]
pub(crate) fn a_daemon_of_a_group_ends_with_a_failure_or_a_stop() {
    for failing in ["beside", "a", "c"] {
        let mut bench = Bench::new(groups_with_a_daemon());
        bench.started("server");
        for name in ["beside", "a", "b", "c"] {
            if !bench.states().contains_key(name) {
                break;
            }
            let outcome = if name == failing { Outcome::Failed } else { Outcome::Succeeded };
            bench.ends(name, outcome);
        }
        assert_eq!(bench.killed, vec![bench.launch_of("server")], "{failing}");
        bench.go();
        assert_eq!(bench.states()["server"], TaskState::Succeeded, "{failing}");
        assert_eq!(bench.state(), RunState::Failed, "{failing}");
    }
    let mut bench = Bench::new(groups_with_a_daemon());
    bench.started("server");
    bench.ends("beside", Outcome::Succeeded);
    bench.apply(Command::StopRun {
        run: bench.run,
        mode: kobza_engine::StopMode::Stop,
        reason: String::new(),
    });
    bench.go();
    assert!(bench.state().is_finished(), "{:?}", bench.states());
}

fn depends_on_daemon(name: &str) -> Node {
    Node { gate: Gate::Logical(bare(0)), ..node(name) }
}

#[test]
pub(crate) fn steps_are_groups_in_a_row_judged_whole() {
    let mut groups = Vec::new();
    for g in 0..3 {
        let mut group =
            graph(&format!("group{g}"), vec![node(&format!("p{g}")), node(&format!("q{g}"))]);
        if let TemplateBody::Graph(graph) = &mut group.body {
            graph.verdict.set = VerdictSet::All;
        }
        groups.push(group);
    }
    let steps: Vec<Node> = (0..3u32)
        .map(|g| Node {
            call: TemplateNo(3 + g),
            ..needs(&format!("step{g}"), &if g == 0 { vec![] } else { vec![g - 1] })
        })
        .collect();
    let definition = workflow(steps, groups);
    let mut bench = Bench::new(definition.clone());
    bench.ends("p0", Outcome::Succeeded);
    assert!(!bench.states().contains_key("p1"));
    bench.ends("q0", Outcome::Succeeded);
    assert!(bench.states().contains_key("p1"));
    bench.go();
    assert_eq!(bench.state(), RunState::Succeeded);
    let mut bench = Bench::new(definition);
    bench.script = fails(&["p1"]);
    bench.go();
    let states = bench.states();
    assert_eq!(states["q1"], TaskState::Succeeded, "the whole group runs");
    assert_eq!(states["step1"], TaskState::Failed);
    assert_eq!(states["step2"], TaskState::UpstreamFailed);
    assert!(!states.contains_key("p2"));
}

fn with_suspend() -> Workflow {
    let mut definition = workflow(
        vec![Node { call: TemplateNo(3), guard: true, ..node("wait") }, needs("z", &[0])],
        vec![],
    );
    definition.templates.push(leaf("suspend"));
    definition
}

#[test]
pub(crate) fn suspend_waits_for_a_call_or_its_time() {
    let mut bench = Bench::new(with_suspend());
    assert_eq!(bench.states()["wait"], TaskState::Suspended);
    let id = bench.id("wait");
    bench.apply(Command::ResumeTask {
        task: id,
        outputs: Some(vec![("answer".to_owned(), Json::from(7))]),
        carry: None,
    });
    let outputs: Vec<_> = bench.batches.iter().flat_map(|b| &b.outputs).collect();
    assert_eq!(outputs.len(), 1);
    bench.go();
    assert_eq!(bench.state(), RunState::Succeeded);

    let mut bench = Bench::new(workflow(vec![node("idle")], vec![]));
    bench.decide = Box::new(|q, _| {
        assert_eq!(q.kind, QuestionKind::Guard);
        Decision::Run { inputs: serde_json::json!({ "duration_ms": 5000 }) }
    });
    bench.start(with_suspend(), 2);
    bench.after(4999);
    assert_eq!(bench.states()["wait"], TaskState::Suspended);
    bench.after(1);
    assert_eq!(bench.states()["wait"], TaskState::Succeeded);

    // Resumed by hand without a value; or stopped with its run.
    let mut bench = Bench::new(with_suspend());
    let id = bench.id("wait");
    bench.apply(Command::ResumeTask { task: id, outputs: None, carry: None });
    assert_eq!(bench.states()["wait"], TaskState::Succeeded);
    let mut bench = Bench::new(with_suspend());
    bench.apply(Command::StopRun {
        run: bench.run,
        mode: kobza_engine::StopMode::Cancel,
        reason: String::new(),
    });
    assert_eq!(bench.states()["wait"], TaskState::Cancelled);
    assert_eq!(bench.state(), RunState::Cancelled);
}
