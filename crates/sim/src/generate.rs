//! Random workflows of every general form.

use kobza_model::*;

use crate::random::Random;

/// Names of limits that generated workflows use, with capacities.
pub(crate) const LIMITS: [(&str, u32); 2] = [("pool", 2), ("mutex", 1)];

fn gate(random: &mut Random) -> Gate {
    use Outcome::*;
    let row = |when, then| GateRow { when, then };
    match random.below(8) {
        0 => Gate::all_done(),
        // One failed, else skipped once all is done.
        1 => Gate::Counting(vec![
            row(Condition::any_of(&[Failed, UpstreamFailed]), GateVerdict::Run),
            row(Condition::all_done(), GateVerdict::Skip),
        ]),
        // None failed.
        2 => Gate::Counting(vec![
            row(Condition::any_of(&[Failed, UpstreamFailed]), GateVerdict::UpstreamFail),
            row(Condition::all_done(), GateVerdict::Run),
        ]),
        // One succeeded: may run before the others have ended.
        3 => Gate::Counting(vec![
            row(Condition::any_of(&[Succeeded]), GateVerdict::Run),
            row(Condition::all_done(), GateVerdict::UpstreamFail),
        ]),
        _ => Gate::all_succeeded(),
    }
}

fn graph(random: &mut Random, prefix: &str, calls: &[u32], size: u32) -> Graph {
    let mut nodes = Vec::new();
    let mut expanded: Vec<u32> = Vec::new();
    for number in 0..size {
        let mut edges = Vec::new();
        for upstream in 0..number {
            if random.chance(40) {
                edges.push(Edge::on(NodeNo(upstream)));
            }
        }
        let call = calls[random.below(calls.len() as u32) as usize];
        let mut gate = gate(random);
        if edges.is_empty() {
            gate = Gate::all_succeeded();
        }
        if random.chance(15) && !edges.is_empty() {
            let is = |edge: &Edge, outcomes: &[Outcome]| {
                Tree::Is(Predicate {
                    node: edge.upstream,
                    quantifier: Quantifier::Summary,
                    outcomes: outcomes.to_vec(),
                    causes: Vec::new(),
                    except_causes: Vec::new(),
                    or_daemon: false,
                })
            };
            let parts: Vec<Tree> =
                edges.iter().map(|e| is(e, &[Outcome::Succeeded, Outcome::Skipped])).collect();
            gate =
                Gate::Logical(if random.chance(50) { Tree::All(parts) } else { Tree::Any(parts) });
        }
        let expansion = random.chance(25).then(|| Expansion {
            at: ExpansionAt::Gate,
            by: if random.chance(50) {
                ExpansionBy::Static(random.below(6))
            } else {
                ExpansionBy::Ask
            },
            zero: if random.chance(50) { ZeroLength::Skipped } else { ZeroLength::Succeeded },
            window: random.chance(50).then(|| 1 + random.below(3)),
            fail_fast: false,
        });
        // A second node of the same mapped group, instance by instance.
        let leader = expanded.last().copied().filter(|_| expansion.is_none() && random.chance(30));
        let (expansion, gate, edges) = match leader {
            Some(leader) => (
                Some(Expansion {
                    at: ExpansionAt::Upstream(Vec::new()),
                    by: ExpansionBy::Like(NodeNo(leader)),
                    zero: ZeroLength::Skipped,
                    window: None,
                    fail_fast: false,
                }),
                Gate::all_succeeded(),
                vec![Edge {
                    upstream: NodeNo(leader),
                    class: EdgeClass::Data,
                    instances: Instances::Aligned,
                }],
            ),
            None => (expansion, gate, edges),
        };
        if expansion.is_some() && leader.is_none() {
            expanded.push(number);
        }
        let retry = random.chance(30).then(|| Retry {
            limit: 1 + random.below(2),
            backoff: Backoff {
                delay_ms: u64::from(random.below(3)) * 1000,
                factor: 2.0,
                max_ms: None,
                jitter: 0.0,
            },
            causes: Vec::new(),
            exit_codes: Vec::new(),
            ask: random.chance(20),
        });
        // Only on leaves: a graph that holds what its own tasks need waits for itself, by its
        // author's will.
        let limits = if call < 2 && random.chance(35) {
            let (name, _) = LIMITS[random.below(2) as usize];
            vec![LimitUse { limit: name.to_owned(), weight: 1, while_waiting: random.chance(30) }]
        } else {
            Vec::new()
        };
        nodes.push(Node {
            name: format!("{prefix}{number}"),
            call: TemplateNo(call),
            gate,
            edges,
            guard: random.chance(25),
            expansion,
            limits,
            priority: random.below(3) as i32,
            retry,
            attempt_timeout_ms: None,
            timeout_ms: None,
            hooks: Vec::new(),
            continue_on: if random.chance(10) { vec![Outcome::Failed] } else { Vec::new() },
            daemon: false,
            ignorable: random.chance(5),
            arguments: Json::Null,
            produces: Vec::new(),
            consumes: Vec::new(),
        });
    }
    let verdict = Verdict {
        set: if random.chance(50) { VerdictSet::Leaves } else { VerdictSet::All },
        ..Verdict::default()
    };
    Graph {
        nodes,
        verdict,
        parallelism: random.chance(20).then(|| 1 + random.below(3)),
        outputs: random.chance(30),
        spec: Json::Null,
    }
}

/// A workflow: template 0 is launched, 1 a no-op, 2 and 3 graphs, 4 the entry.
#[must_use]
pub fn workflow(seed: u64) -> Workflow {
    let mut random = Random::new(seed);
    let leaf = |kind: &str| Template {
        name: kind.to_owned(),
        body: TemplateBody::Leaf(Leaf { kind: kind.to_owned(), spec: Json::Null }),
    };
    let called = |name: &str, graph: Graph| Template {
        name: name.to_owned(),
        body: TemplateBody::Graph(graph),
    };
    let (size_a, size_b, size) = (1 + random.below(3), 1 + random.below(3), 1 + random.below(8));
    let inner = graph(&mut random, "i", &[0, 1], size_a);
    let outer = graph(&mut random, "o", &[0, 0, 1, 2], size_b);
    let main = graph(&mut random, "t", &[0, 0, 0, 1, 2, 3], size);
    Workflow {
        name: format!("w{seed}"),
        dialect: "sim".to_owned(),
        templates: vec![
            leaf("work"),
            leaf("noop"),
            called("inner", inner),
            called("outer", outer),
            called("main", main),
        ],
        entry: TemplateNo(4),
        description: None,
        tags: Vec::new(),
        params: Json::Null,
        timeout_ms: None,
        max_active_runs: random.chance(30).then_some(1),
        hooks: Vec::new(),
        open: false,
        backfills_apart: false,
        triggers: Json::Null,
        source: Json::Null,
    }
}
