//! Airflow's trigger rules as counting tables, against their formulas computed directly.

use kobza_model::*;

use crate::harness::*;

/// The dialect's own tables: the engine cannot depend on the dialect.
#[allow(dead_code, unreachable_pub, reason = "part of another crate")]
#[path = "../../../dialect-airflow/src/rules.rs"]
mod rules;

use rules::RULES;

const CLASSES: [EdgeClass; 2] = [EdgeClass::Data, EdgeClass::Setup];

fn rule(name: &str) -> Gate {
    rules::gate(name).unwrap()
}

/// The same formulas in plain arithmetic: what a rule says about upstream states (`None`: not
/// finished), or nothing yet.
fn formula(
    rule: &str,
    states: &[(EdgeClass, Option<Outcome>)],
    map_index: usize,
) -> Option<TaskState> {
    use TaskState::{Removed, Skipped, Succeeded as Ran, UpstreamFailed};
    let count = |o: Outcome| states.iter().filter(|s| s.1 == Some(o)).count();
    let setups: Vec<_> = states.iter().filter(|s| s.0 == EdgeClass::Setup).collect();
    let setup = |o: Outcome| setups.iter().filter(|s| s.1 == Some(o)).count();
    let (s, k, f) = (count(Outcome::Succeeded), count(Outcome::Skipped), count(Outcome::Failed));
    let (u, r) = (count(Outcome::UpstreamFailed), count(Outcome::Removed));
    let (d, n) = (s + k + f + u + r, states.len());
    if n == 0 {
        return Some(Ran);
    }
    let when = |run: bool| run.then_some(Ran);
    match rule {
        "all_success" => {
            if u > 0 || f > 0 {
                Some(UpstreamFailed)
            } else if k > 0 {
                Some(Skipped)
            } else if r > 0 && s > 0 && map_index >= s {
                Some(Removed)
            } else {
                when(s + r >= n)
            }
        }
        "all_failed" => {
            if s > 0 || k > 0 {
                Some(Skipped)
            } else {
                when(f + u + r >= n)
            }
        }
        "all_done" => when(d >= n),
        "all_done_min_one_success" => {
            if k > 0 {
                Some(Skipped)
            } else if s + f + u + r >= n - k && s == 0 {
                Some(UpstreamFailed)
            } else {
                when(s + f + u + k + r >= n && s > 0)
            }
        }
        "all_done_setup_success" => {
            if d < n {
                None
            } else if setups.is_empty() {
                Some(Ran)
            } else if setup(Outcome::Skipped) >= setups.len() {
                Some(Skipped)
            } else if setup(Outcome::Succeeded) == 0 {
                Some(UpstreamFailed)
            } else {
                Some(Ran)
            }
        }
        "one_success" => {
            if d >= n && d == k {
                Some(Skipped)
            } else if d >= n && s == 0 {
                Some(UpstreamFailed)
            } else {
                when(s > 0)
            }
        }
        "one_failed" => {
            if d >= n && f + u == 0 {
                Some(Skipped)
            } else {
                when(f + u > 0)
            }
        }
        "one_done" => {
            if d >= n && f + s == 0 {
                Some(Skipped)
            } else {
                when(s + f > 0)
            }
        }
        "none_failed" => {
            if u + f > 0 {
                Some(UpstreamFailed)
            } else {
                when(s + k + r >= n)
            }
        }
        "none_failed_min_one_success" => {
            if u + f > 0 {
                Some(UpstreamFailed)
            } else if k == n {
                Some(Skipped)
            } else if d >= n && s == 0 {
                Some(UpstreamFailed)
            } else {
                when(s + k + r >= n && s > 0)
            }
        }
        "none_skipped" => {
            if k > 0 {
                Some(Skipped)
            } else {
                when(d >= n)
            }
        }
        "all_skipped" => {
            if s + f + u > 0 {
                Some(Skipped)
            } else {
                when(k >= n)
            }
        }
        "always" => Some(Ran),
        other => panic!("no rule {other}"),
    }
}

const ENDS: [Outcome; 5] = [
    Outcome::Succeeded,
    Outcome::Skipped,
    Outcome::Failed,
    Outcome::UpstreamFailed,
    Outcome::Removed,
];

/// A no-op node that ends so once `after` has ended.
fn ending(name: &str, outcome: Outcome, after: u32) -> Node {
    let gate = match outcome {
        Outcome::Succeeded => says_when_done(GateVerdict::Run),
        Outcome::Skipped => says_when_done(GateVerdict::Skip),
        Outcome::UpstreamFailed => says_when_done(GateVerdict::UpstreamFail),
        Outcome::Removed => says_when_done(GateVerdict::Remove),
        // No row can ever hold: failed, as nothing is left that could change it.
        _ => Gate::Counting(Vec::new()),
    };
    Node { gate, call: TemplateNo(1), ..needs(name, &[after]) }
}

/// One run with a reader for each rule; upstream nodes end in order, and after each end every
/// reader must be in the state that its formula gave first.
fn check_rules(upstream: &[(EdgeClass, Outcome)], mapped_reader: bool) {
    let count = upstream.len();
    let mut nodes: Vec<Node> = (0..count).map(|i| node(&format!("t{i}"))).collect();
    for (i, (_, outcome)) in upstream.iter().enumerate() {
        nodes.push(ending(&format!("u{i}"), *outcome, i as u32));
    }
    let width = if mapped_reader { 3 } else { 1 };
    for name in RULES {
        let edges = upstream.iter().enumerate().map(|(i, (class, _))| Edge {
            upstream: NodeNo((count + i) as u32),
            class: *class,
            instances: Instances::All,
        });
        nodes.push(Node {
            edges: edges.collect(),
            gate: rule(name),
            call: TemplateNo(1),
            expansion: mapped_reader.then(|| Expansion {
                at: ExpansionAt::Upstream(Vec::new()),
                by: ExpansionBy::Static(width),
                zero: ZeroLength::Skipped,
                window: None,
                fail_fast: false,
            }),
            ..node(name)
        });
    }
    let mut bench = Bench::new(workflow(nodes, vec![]));
    let mut decided = vec![None; RULES.len() * width as usize];
    for step in 0..=count {
        let seen: Vec<(EdgeClass, Option<Outcome>)> = upstream
            .iter()
            .enumerate()
            .map(|(i, (class, outcome))| (*class, (i < step).then_some(*outcome)))
            .collect();
        let states = bench.states();
        for (place, name) in RULES.iter().enumerate() {
            for index in 0..width as usize {
                let slot = &mut decided[place * width as usize + index];
                *slot = slot.or_else(|| formula(name, &seen, index));
                let key =
                    if mapped_reader { format!("{name}[{index}]") } else { (*name).to_owned() };
                // All has ended and the rule still waits: Airflow fails the run as deadlocked, and
                // so does the engine, by failing the task that can never run.
                let undecided = if step == count { TaskState::Failed } else { TaskState::Pending };
                assert_eq!(
                    states[&key],
                    slot.unwrap_or(undecided),
                    "{key} after {step} of {upstream:?}"
                );
            }
        }
        if step < count {
            bench.ends(&format!("t{step}"), Outcome::Succeeded);
        }
    }
    assert!(bench.state().is_finished());
}

/// All lists of this length over `from`.
fn lists<T: Copy>(from: &[T], length: usize) -> Vec<Vec<T>> {
    (0..length).fold(vec![Vec::new()], |lists, _| {
        lists
            .iter()
            .flat_map(|l| from.iter().map(move |&x| l.iter().copied().chain([x]).collect()))
            .collect()
    })
}

#[test]
pub(crate) fn thirteen_rules_agree_with_their_formulas_at_every_moment() {
    for length in 0..=4 {
        for outcomes in lists(&ENDS, length) {
            let upstream: Vec<_> = outcomes.iter().map(|&o| (EdgeClass::Data, o)).collect();
            check_rules(&upstream, false);
        }
    }
}

#[test]
pub(crate) fn rules_count_setups_apart() {
    let from: Vec<_> = ENDS.iter().flat_map(|&o| CLASSES.iter().map(move |&c| (c, o))).collect();
    for length in 1..=3 {
        for upstream in lists(&from, length) {
            check_rules(&upstream, false);
        }
    }
}

#[test]
pub(crate) fn rules_of_mapped_readers_know_their_index() {
    for length in 0..=3 {
        for outcomes in lists(&ENDS, length) {
            let upstream: Vec<_> = outcomes.iter().map(|&o| (EdgeClass::Data, o)).collect();
            check_rules(&upstream, true);
        }
    }
}

/// Over a mapped upstream the result is that of the same rule over as many plain tasks.
#[test]
pub(crate) fn rules_over_a_mapped_upstream() {
    for outcomes in lists(&[Outcome::Succeeded, Outcome::Skipped, Outcome::Failed], 3) {
        let mut nodes = vec![Node { expansion: mapped(3), ..node("m") }];
        nodes.extend(RULES.iter().map(|r| Node {
            gate: rule(r),
            call: TemplateNo(1),
            ..needs(r, &[0])
        }));
        let mut bench = Bench::new(workflow(nodes, vec![]));
        let mut decided = vec![None; RULES.len()];
        for step in 0..=3 {
            let seen: Vec<_> =
                (0..3).map(|i| (EdgeClass::Data, (i < step).then_some(outcomes[i]))).collect();
            for (place, name) in RULES.iter().enumerate() {
                decided[place] = decided[place].or_else(|| formula(name, &seen, 0));
            }
            if step < 3 {
                bench.ends(&format!("m[{step}]"), outcomes[step]);
            }
        }
        let states = bench.states();
        for (place, name) in RULES.iter().enumerate() {
            let expected = decided[place].unwrap_or(TaskState::Failed);
            assert_eq!(states[*name], expected, "{name} over {outcomes:?}");
        }
    }
}

/// A group of two mapped nodes: the reader's instance `i` of `n` means upstream `i*u/n` and, if the
/// upstream is longer, all up to `(i+1)*u/n`.
fn aligned(upstream: u32, own: u32, failing: u32) -> Bench {
    let by_upstream = |at| Expansion {
        at: ExpansionAt::Upstream(Vec::new()),
        by: ExpansionBy::Static(at),
        zero: ZeroLength::Skipped,
        window: None,
        fail_fast: false,
    };
    let reader = Node {
        expansion: Some(by_upstream(own)),
        edges: vec![Edge {
            upstream: NodeNo(0),
            class: EdgeClass::Data,
            instances: Instances::Aligned,
        }],
        gate: rule("all_success"),
        call: TemplateNo(1),
        ..node("b")
    };
    let mut bench = Bench::new(workflow(
        vec![Node { expansion: mapped(upstream), ..node("a") }, reader],
        vec![],
    ));
    // Last first, so that each reader is seen to wait for its own range only.
    for i in (0..upstream).rev() {
        let outcome = if i == failing { Outcome::Failed } else { Outcome::Succeeded };
        bench.ends(&format!("a[{i}]"), outcome);
        for reader in 0..own {
            let start = reader * upstream / own;
            let end = ((reader + 1) * upstream / own).max(start + 1).min(upstream);
            let expected = if (start..end).contains(&failing) && failing >= i {
                TaskState::UpstreamFailed
            } else if start >= i {
                TaskState::Succeeded
            } else {
                TaskState::Pending
            };
            assert_eq!(
                bench.states()[&format!("b[{reader}]")],
                expected,
                "{upstream} upstream, reader {reader} of {own}, after {i} with {failing} failing"
            );
        }
    }
    bench
}

#[test]
pub(crate) fn aligned_edges_of_equal_shorter_and_longer_lengths() {
    for upstream in 1..=6 {
        for own in 1..=6 {
            for failing in 0..=upstream {
                let bench = aligned(upstream, own, failing);
                let failed = failing < upstream;
                let expected = if failed { RunState::Failed } else { RunState::Succeeded };
                // Which reader fails depends on the lengths, but some reader reads each instance
                // unless there are fewer readers than instances rounded down: then none may.
                let read = bench.states().values().any(|s| *s == TaskState::UpstreamFailed);
                if read || !failed {
                    assert_eq!(bench.state(), expected, "{upstream} {own} {failing}");
                }
            }
        }
    }
}

#[test]
pub(crate) fn a_mapped_group_of_three_goes_on_instance_by_instance() {
    let follow = |name: &str, up: u32| Node {
        expansion: Some(Expansion {
            at: ExpansionAt::Upstream(Vec::new()),
            by: ExpansionBy::Like(NodeNo(0)),
            zero: ZeroLength::Skipped,
            window: None,
            fail_fast: false,
        }),
        edges: vec![Edge {
            upstream: NodeNo(up),
            class: EdgeClass::Data,
            instances: Instances::Aligned,
        }],
        ..node(name)
    };
    let nodes = vec![
        Node { expansion: mapped(2), ..node("a") },
        follow("b", 0),
        follow("c", 1),
        Node { gate: rule("all_done"), ..needs("z", &[2]) },
    ];
    let mut bench = Bench::new(workflow(nodes, vec![]));
    bench.ends("a[1]", Outcome::Succeeded);
    bench.ends("b[1]", Outcome::Succeeded);
    bench.ends("c[1]", Outcome::Succeeded);
    assert_eq!(bench.states()["b[0]"], TaskState::Pending);
    bench.ends("a[0]", Outcome::Failed);
    assert_eq!(bench.states()["c[0]"], TaskState::UpstreamFailed);
    bench.ends("z", Outcome::Succeeded);
    assert_eq!(bench.state(), RunState::Succeeded);
}

/// setup -> work -> teardown, with the teardown also after its setup.
fn with_teardown(ignorable: bool) -> Vec<Node> {
    let edge = |up: u32, class| Edge { upstream: NodeNo(up), class, instances: Instances::All };
    vec![
        node("setup"),
        Node { gate: rule("all_success"), ..needs("work", &[0]) },
        Node {
            gate: rule("all_done_setup_success"),
            edges: vec![edge(0, EdgeClass::Setup), edge(1, EdgeClass::Data)],
            ignorable,
            ..node("teardown")
        },
    ]
}

#[test]
pub(crate) fn teardown_runs_after_failed_work_and_does_not_hide_it() {
    let mut bench = Bench::new(workflow(with_teardown(true), vec![]));
    bench.script = fails(&["work"]);
    bench.go();
    assert_eq!(bench.states()["teardown"], TaskState::Succeeded);
    assert_eq!(bench.state(), RunState::Failed);
}

#[test]
pub(crate) fn failed_teardown_counts_only_when_asked_to() {
    for (ignorable, expected) in [(true, RunState::Succeeded), (false, RunState::Failed)] {
        let mut bench = Bench::new(workflow(with_teardown(ignorable), vec![]));
        bench.script = fails(&["teardown"]);
        bench.go();
        assert_eq!(bench.state(), expected);
    }
}

#[test]
pub(crate) fn teardown_follows_its_setup() {
    let mut bench = Bench::new(workflow(with_teardown(true), vec![]));
    bench.script = fails(&["setup"]);
    bench.go();
    assert_eq!(bench.states()["work"], TaskState::UpstreamFailed);
    assert_eq!(bench.states()["teardown"], TaskState::UpstreamFailed);
    let mut nodes = with_teardown(true);
    nodes[0].gate = says(GateVerdict::Skip);
    let mut bench = Bench::new(workflow(nodes, vec![]));
    bench.go();
    assert_eq!(bench.states()["teardown"], TaskState::Skipped);
}

#[test]
pub(crate) fn a_branch_skips_and_skips_again_when_only_the_reader_is_cleared() {
    let nodes = vec![
        node("choose"),
        Node { gate: rule("all_success"), ..needs("left", &[0]) },
        Node { gate: rule("all_success"), ..needs("right", &[0]) },
        Node { gate: rule("none_failed_min_one_success"), ..needs("join", &[1, 2]) },
    ];
    let mut bench = Bench::new(workflow(nodes, vec![]));
    let id = bench.launch_of("choose");
    bench.launched.clear();
    let mut report = finished(Outcome::Succeeded, Cause::None);
    if let kobza_engine::ReportBody::Finished { skips, .. } = &mut report {
        skips.push(NodeNo(1));
    }
    bench.report(id, report);
    assert_eq!(
        (bench.named("left").state, bench.named("left").cause),
        (TaskState::Skipped, Cause::Branch)
    );
    bench.go();
    assert_eq!(bench.states()["join"], TaskState::Succeeded);
    assert_eq!(bench.state(), RunState::Succeeded);
    bench.clear(&["left"], true, false);
    bench.go();
    assert_eq!(
        (bench.named("left").state, bench.named("left").cause),
        (TaskState::Skipped, Cause::Branch)
    );
    assert_eq!(bench.named("join").attempt, 2);
    assert_eq!(bench.named("right").attempt, 1);
    // The choice is made anew when the chooser is cleared: it chooses both now.
    bench.clear(&["choose"], true, false);
    bench.go();
    assert_eq!(bench.states()["left"], TaskState::Succeeded);
    assert_eq!(bench.state(), RunState::Succeeded);
}
