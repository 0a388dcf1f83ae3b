//! Who waits for whom: `needs`, groups, checks, setup and teardown.

use std::collections::BTreeSet;

use kobza_model::{EdgeClass, Instances};

use super::graph::{Draft, Members, Target};
use super::{Compiler, flag, words};
use crate::diagnostic::{shown, suggest};
use crate::document::Located;
use crate::shape::{Finding, below};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct EdgeDraft {
    pub(super) upstream: usize,
    pub(super) class: EdgeClass,
    pub(super) instances: Instances,
}

/// One entry of `needs`, resolved.
struct Need<'a> {
    target: Target,
    instances: Instances,
    value: &'a Located,
}

pub(super) fn is_setup(draft: &Draft<'_>) -> bool {
    flag(draft.value, "setup")
}

/// A check that does not hold anybody back.
pub(super) fn is_warning(draft: &Draft<'_>) -> bool {
    draft.check_of.is_some() && draft.value.get("block").and_then(Located::bool) == Some(false)
}

impl<'a> Compiler<'a> {
    pub(super) fn edges(&mut self, members: &Members<'a>) -> Vec<Vec<EdgeDraft>> {
        let needs: Vec<Vec<Need<'a>>> = members
            .drafts
            .iter()
            .map(|draft| self.needs(members, draft.value, &draft.path, &draft.prefix))
            .collect();
        let group_needs: Vec<Vec<Need<'a>>> = members
            .groups
            .iter()
            .map(|group| self.needs(members, group.value, &group.path, &group.prefix))
            .collect();
        let mut edges: Vec<Vec<EdgeDraft>> = vec![Vec::new(); members.drafts.len()];
        for (place, draft) in members.drafts.iter().enumerate() {
            if let Some(task) = draft.check_of {
                add(&mut edges[place], members, task, EdgeClass::Data, Instances::All);
                continue;
            }
            for need in &needs[place] {
                self.check_instances(members, draft, need);
                connect(&mut edges[place], members, &needs, need);
            }
            // What a group needs, those of its tasks need that begin it.
            for &group in &draft.groups {
                if needs[place].iter().any(|need| inside(members, need.target, group)) {
                    continue;
                }
                for need in &group_needs[group] {
                    if inside_of(members, need.target, place) {
                        let message = "a group cannot need itself or what is inside it";
                        let path = below(&members.groups[group].path, "needs");
                        self.findings.push(Finding::at(need.value, &path, message));
                        continue;
                    }
                    connect(&mut edges[place], members, &needs, need);
                }
            }
        }
        checks_hold_readers(members, &mut edges);
        self.teardowns(members, &mut edges);
        self.report_cycle(members, &edges);
        edges
    }

    fn needs(
        &mut self,
        members: &Members<'a>,
        value: &'a Located,
        path: &str,
        prefix: &str,
    ) -> Vec<Need<'a>> {
        let Some(needs) = value.get("needs") else { return Vec::new() };
        let path = below(path, "needs");
        let single = std::slice::from_ref(needs);
        let list = if needs.is_list() { needs.items() } else { single };
        let mut out: Vec<Need<'a>> = Vec::new();
        for item in list {
            let at = item.get("task").unwrap_or(item);
            let Some(name) = at.text() else { continue };
            let Some(target) = members.find(prefix, name) else {
                let message = format!("there is no task `{}`", shown(name));
                let hint = suggest(name, members.visible(prefix)).or_else(|| {
                    Some("a task needs tasks of the same workflow, by their names".to_owned())
                });
                self.error(Finding::at(at, &path, message).maybe_hint(hint));
                continue;
            };
            let instances = match item.get("instances").and_then(Located::text) {
                Some("aligned") => Instances::Aligned,
                Some("summary") => Instances::Summary,
                _ => Instances::All,
            };
            if out.iter().any(|need| need.target == target) {
                let message = format!("`{}` is needed twice", shown(name));
                self.error(Finding::at(at, &path, message).hint("remove one"));
                continue;
            }
            out.push(Need { target, instances, value: at });
        }
        out
    }

    fn check_instances(&mut self, members: &Members<'a>, draft: &Draft<'a>, need: &Need<'a>) {
        if need.instances != Instances::Aligned {
            return;
        }
        let upstream_mapped = match need.target {
            Target::Task(up) => members.drafts[up].value.get("map").is_some(),
            Target::Group(_) => false,
        };
        if !upstream_mapped || draft.value.get("map").is_none() {
            self.error(
                Finding::at(
                    need.value,
                    &below(&draft.path, "needs"),
                    "`instances: aligned` joins two mapped tasks",
                )
                .hint("give both a `map`, the second perhaps `map: {like: …}`"),
            );
        }
    }

    /// A teardown waits for its setups, and for all that stands between.
    fn teardowns(&mut self, members: &Members<'a>, edges: &mut [Vec<EdgeDraft>]) {
        let teardowns: Vec<(usize, BTreeSet<usize>)> = members
            .drafts
            .iter()
            .enumerate()
            .filter_map(|(place, draft)| Some((place, draft, draft.value.get("teardown")?)))
            .map(|(place, draft, value)| {
                let path = below(&draft.path, "teardown");
                let mut setups = BTreeSet::new();
                for (at, name) in words(Some(value)) {
                    match members.find(&draft.prefix, name) {
                        Some(Target::Task(setup)) if is_setup(&members.drafts[setup]) => {
                            setups.insert(setup);
                        }
                        Some(_) => {
                            let message = format!("`{}` is no setup task", shown(name));
                            self.error(
                                Finding::at(at, &path, message).hint("give it `setup: true`"),
                            );
                        }
                        None => {
                            let message = format!("there is no task `{}`", shown(name));
                            let hint = suggest(name, members.visible(&draft.prefix));
                            self.error(Finding::at(at, &path, message).maybe_hint(hint));
                        }
                    }
                }
                (place, setups)
            })
            .collect();
        if teardowns.is_empty() {
            return;
        }
        let mut readers: Vec<Vec<usize>> = vec![Vec::new(); edges.len()];
        for (place, list) in edges.iter().enumerate() {
            for edge in list {
                readers[edge.upstream].push(place);
            }
        }
        let below_of = |roots: &BTreeSet<usize>, readers: &[Vec<usize>]| {
            let mut found = BTreeSet::new();
            let mut stack: Vec<usize> = roots.iter().copied().collect();
            while let Some(at) = stack.pop() {
                for &reader in &readers[at] {
                    if found.insert(reader) {
                        stack.push(reader);
                    }
                }
            }
            found
        };
        let places: BTreeSet<usize> = teardowns.iter().map(|(place, _)| *place).collect();
        for (place, setups) in &teardowns {
            let after = below_of(&BTreeSet::from([*place]), &readers);
            let mut between = below_of(setups, &readers);
            between.retain(|at| at != place && !after.contains(at) && !places.contains(at));
            let ends: Vec<usize> = between
                .iter()
                .copied()
                .filter(|&at| !readers[at].iter().any(|reader| between.contains(reader)))
                .collect();
            // Teardowns of setups that came later end first.
            let inner = teardowns.iter().filter(|(other, theirs)| {
                other != place
                    && !theirs.is_empty()
                    && theirs.iter().all(|setup| between.contains(setup))
            });
            let inner: Vec<usize> = inner.map(|(other, _)| *other).collect();
            let own = &mut edges[*place];
            own.retain(|edge| !setups.contains(&edge.upstream));
            for &setup in setups {
                own.push(EdgeDraft {
                    upstream: setup,
                    class: EdgeClass::Setup,
                    instances: Instances::All,
                });
            }
            for upstream in ends.into_iter().chain(inner) {
                if !own.iter().any(|edge| edge.upstream == upstream) {
                    own.push(EdgeDraft {
                        upstream,
                        class: EdgeClass::Order,
                        instances: Instances::All,
                    });
                }
            }
        }
    }

    fn report_cycle(&mut self, members: &Members<'a>, edges: &[Vec<EdgeDraft>]) {
        let Some(cycle) = find_cycle(edges) else { return };
        let mut names: Vec<&str> =
            cycle.iter().map(|&place| members.drafts[place].name.as_str()).collect();
        // Written in the direction of running, so that it can be read as "before".
        names.reverse();
        if let Some(first) = names.first().copied() {
            names.push(first);
        }
        let text = if names.len() > 12 {
            format!("{} → … → {}", names[..10].join(" → "), names[names.len() - 1])
        } else {
            names.join(" → ")
        };
        let first = cycle.iter().min().copied().unwrap_or(0);
        let draft = &members.drafts[first];
        let path = below(&draft.path, "needs");
        let message = format!("these tasks wait for each other: {text}");
        let finding = match draft.value.get("needs") {
            Some(needs) => Finding::at(needs, &path, message),
            None => Finding::at_key(draft.key, &draft.path, message),
        };
        self.error(finding.hint("remove one of these `needs`"));
    }
}

fn add(
    edges: &mut Vec<EdgeDraft>,
    members: &Members<'_>,
    upstream: usize,
    class: EdgeClass,
    instances: Instances,
) {
    if edges.iter().any(|edge| edge.upstream == upstream) {
        return;
    }
    let class = if is_setup(&members.drafts[upstream]) { EdgeClass::Setup } else { class };
    edges.push(EdgeDraft { upstream, class, instances });
}

fn connect(
    edges: &mut Vec<EdgeDraft>,
    members: &Members<'_>,
    needs: &[Vec<Need<'_>>],
    need: &Need<'_>,
) {
    match need.target {
        Target::Task(up) => add(edges, members, up, EdgeClass::Data, need.instances),
        Target::Group(group) => {
            for up in ends_of(members, needs, group) {
                add(edges, members, up, EdgeClass::Data, need.instances);
            }
        }
    }
}

/// Whether a target lies inside a group (or is it).
fn inside(members: &Members<'_>, target: Target, group: usize) -> bool {
    match target {
        Target::Task(place) => members.drafts[place].groups.contains(&group),
        Target::Group(other) => members.groups[other].chain.contains(&group),
    }
}

/// Whether a target is a task or holds it.
fn inside_of(members: &Members<'_>, target: Target, place: usize) -> bool {
    match target {
        Target::Task(other) => other == place,
        Target::Group(group) => members.drafts[place].groups.contains(&group),
    }
}

/// Tasks of a group that none of the group needs.
fn ends_of(members: &Members<'_>, needs: &[Vec<Need<'_>>], group: usize) -> Vec<usize> {
    let inner: Vec<usize> =
        members.within(group).filter(|&place| !is_warning(&members.drafts[place])).collect();
    let mut needed = BTreeSet::new();
    for &place in &inner {
        needed.extend(members.drafts[place].check_of);
        for need in &needs[place] {
            match need.target {
                Target::Task(up) => {
                    needed.insert(up);
                }
                Target::Group(other) => needed.extend(members.within(other)),
            }
        }
    }
    inner.into_iter().filter(|place| !needed.contains(place)).collect()
}

/// Who reads a task's data waits for its blocking checks too.
fn checks_hold_readers(members: &Members<'_>, edges: &mut [Vec<EdgeDraft>]) {
    let mut checks: Vec<Vec<usize>> = vec![Vec::new(); members.drafts.len()];
    for (place, draft) in members.drafts.iter().enumerate() {
        if let Some(task) = draft.check_of
            && !is_warning(draft)
        {
            checks[task].push(place);
        }
    }
    for (place, draft) in members.drafts.iter().enumerate() {
        if draft.check_of.is_some() {
            continue;
        }
        let ups: Vec<usize> = edges[place].iter().map(|edge| edge.upstream).collect();
        for check in ups.iter().flat_map(|&up| checks[up].clone()) {
            add(&mut edges[place], members, check, EdgeClass::Data, Instances::All);
        }
    }
}

/// A cycle, each waiting for the next, if there is one.
fn find_cycle(edges: &[Vec<EdgeDraft>]) -> Option<Vec<usize>> {
    const NEW: u8 = 0;
    const OPEN: u8 = 1;
    const DONE: u8 = 2;
    let mut state = vec![NEW; edges.len()];
    for start in 0..edges.len() {
        if state[start] != NEW {
            continue;
        }
        // An explicit stack: a chain of many thousand tasks is fine.
        let mut stack = vec![(start, 0)];
        state[start] = OPEN;
        while let Some((at, next)) = stack.pop() {
            let Some(edge) = edges[at].get(next) else {
                state[at] = DONE;
                continue;
            };
            stack.push((at, next + 1));
            match state[edge.upstream] {
                NEW => {
                    state[edge.upstream] = OPEN;
                    stack.push((edge.upstream, 0));
                }
                OPEN => {
                    let from = stack.iter().position(|(place, _)| *place == edge.upstream)?;
                    return Some(stack[from..].iter().map(|(place, _)| *place).collect());
                }
                _ => {}
            }
        }
    }
    None
}
