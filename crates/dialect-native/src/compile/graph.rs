//! A mapping of tasks as a graph: who is in it, and under which names.

use std::collections::BTreeMap;

use kobza_model::{Graph, Instances, Verdict};

use super::edges::EdgeDraft;
use super::{Compiler, MAX_TASKS};
use crate::diagnostic::{shown, suggest};
use crate::document::{Key, Located};
use crate::grammar::KINDS;
use crate::shape::{Finding, below};
use crate::spec::TaskRead;

/// A node in the making. Its place in the list is its node number.
pub(super) struct Draft<'a> {
    /// Full name: enclosing groups, then its own.
    pub(super) name: String,
    /// The part of the name that comes from groups, with a dot at the end.
    pub(super) prefix: String,
    pub(super) key: &'a Key,
    pub(super) value: &'a Located,
    /// Field path, for messages.
    pub(super) path: String,
    /// Plain groups around it, outermost first.
    pub(super) groups: Vec<usize>,
    /// The task whose data it checks.
    pub(super) check_of: Option<usize>,
    /// Its templates have `item`.
    pub(super) mapped: bool,
}

/// A group that is but a prefix.
pub(super) struct Group<'a> {
    pub(super) name: String,
    pub(super) prefix: String,
    pub(super) value: &'a Located,
    pub(super) path: String,
    /// Plain groups around it, outermost first, and itself last.
    pub(super) chain: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    Task(usize),
    Group(usize),
}

#[derive(Default)]
pub(super) struct Members<'a> {
    pub(super) drafts: Vec<Draft<'a>>,
    pub(super) groups: Vec<Group<'a>>,
    pub(super) index: BTreeMap<String, Target>,
}

/// Names as seen from within a graph, with the graphs around it.
pub(super) struct Names<'s, 'a> {
    pub(super) members: &'s Members<'a>,
    pub(super) edges: &'s [Vec<EdgeDraft>],
    /// The graph around it, and the place of this graph's caller in that.
    pub(super) parent: Option<(&'s Names<'s, 'a>, usize)>,
}

/// Kind of a task: the one field that says what it is.
pub(super) fn kind_of(value: &Located) -> &'static str {
    KINDS.iter().copied().find(|kind| value.get(kind).is_some()).unwrap_or("noop")
}

/// A group that only gathers tasks needs no scope of its own.
fn is_plain_group(value: &Located) -> bool {
    kind_of(value) == "group"
        && value
            .fields()
            .iter()
            .all(|(key, _)| matches!(key.text.as_str(), "group" | "needs" | "description"))
        && value.get("group").is_some_and(|group| group.fields().len() == 1)
}

impl<'a> Members<'a> {
    /// Finds a task or group by a name as seen from within groups: nearest first.
    pub(super) fn find(&self, prefix: &str, name: &str) -> Option<Target> {
        let mut prefix = prefix;
        loop {
            if let Some(target) = self.index.get(&format!("{prefix}{name}")) {
                return Some(*target);
            }
            let outer = prefix.strip_suffix('.')?;
            prefix = outer.rfind('.').map_or("", |at| &prefix[..=at]);
        }
    }

    /// Names that can be written at this prefix, for hints.
    pub(super) fn visible(&self, prefix: &str) -> Vec<&str> {
        let mut names: Vec<&str> = self
            .index
            .iter()
            .filter(|(_, target)| match target {
                Target::Task(place) => self.drafts[*place].check_of.is_none(),
                Target::Group(_) => true,
            })
            .flat_map(|(name, _)| {
                let short = name.strip_prefix(prefix).filter(|_| !prefix.is_empty());
                std::iter::once(name.as_str()).chain(short)
            })
            .collect();
        names.dedup();
        names
    }

    /// Tasks within a plain group, those of inner ones included.
    pub(super) fn within(&self, group: usize) -> impl Iterator<Item = usize> {
        self.drafts
            .iter()
            .enumerate()
            .filter(move |(_, draft)| draft.groups.contains(&group))
            .map(|(place, _)| place)
    }
}

impl Names<'_, '_> {
    /// Everything that ends before a task may begin, nearest first.
    pub(super) fn ancestors(&self, place: usize) -> Vec<usize> {
        let mut seen = vec![false; self.edges.len()];
        let mut order = Vec::new();
        let mut queue = std::collections::VecDeque::from([place]);
        while let Some(at) = queue.pop_front() {
            for edge in &self.edges[at] {
                if !std::mem::replace(&mut seen[edge.upstream], true) {
                    order.push(edge.upstream);
                    queue.push_back(edge.upstream);
                }
            }
        }
        order
    }

    pub(super) fn every_ancestor(&self, place: usize) -> Vec<TaskRead> {
        let mut reads: Vec<TaskRead> = self
            .ancestors(place)
            .into_iter()
            .map(|up| {
                let path = self.members.drafts[up].name.split('.').map(str::to_owned).collect();
                self.task_read(place, up, path)
            })
            .collect();
        if let Some((parent, caller)) = self.parent {
            for mut read in parent.every_ancestor(caller) {
                read.up += 1;
                reads.push(read);
            }
        }
        reads
    }

    fn task_read(&self, place: usize, upstream: usize, path: Vec<String>) -> TaskRead {
        let aligned = self.edges[place]
            .iter()
            .any(|e| e.upstream == upstream && e.instances == Instances::Aligned);
        TaskRead { path, up: 0, node: u32::try_from(upstream).unwrap_or(u32::MAX), aligned }
    }

    /// Resolves what follows `tasks.` in a template. An error is a message with a hint.
    pub(super) fn read(
        &self,
        place: usize,
        reference: &str,
    ) -> Result<Vec<TaskRead>, (String, Option<String>)> {
        let parts: Vec<&str> = reference.split('.').collect();
        let draft = &self.members.drafts[place];
        let found = (1..=parts.len()).rev().find_map(|count| {
            let name = parts[..count].join(".");
            Some((count, self.members.find(&draft.prefix, &name)?))
        });
        let Some((count, target)) = found else {
            if let Some((parent, caller)) = self.parent
                && let Ok(mut reads) = parent.read(caller, reference)
            {
                for read in &mut reads {
                    read.up += 1;
                }
                return Ok(reads);
            }
            let name = parts[0];
            return Err((
                format!("there is no task `{}`", shown(name)),
                suggest(name, self.members.visible(&draft.prefix)),
            ));
        };
        let written: Vec<String> = parts[..count].iter().map(|&p| p.to_owned()).collect();
        let ancestors = self.ancestors(place);
        let not_upstream = |name: &str| {
            (
                format!("`{}` does not come before `{}`", shown(name), shown(&draft.name)),
                Some(format!("add `needs: {}` to `{}`", shown(name), shown(&draft.name))),
            )
        };
        match target {
            Target::Task(up) if ancestors.contains(&up) => {
                Ok(vec![self.task_read(place, up, written)])
            }
            Target::Task(_) => Err(not_upstream(&written.join("."))),
            Target::Group(group) => {
                let prefix = format!("{}.", self.members.groups[group].name);
                let reads: Vec<TaskRead> = self
                    .members
                    .within(group)
                    .filter(|up| ancestors.contains(up))
                    .map(|up| {
                        let rest = self.members.drafts[up].name.strip_prefix(&prefix);
                        let mut path = written.clone();
                        path.extend(rest.unwrap_or_default().split('.').map(str::to_owned));
                        self.task_read(place, up, path)
                    })
                    .collect();
                if reads.is_empty() { Err(not_upstream(&written.join("."))) } else { Ok(reads) }
            }
        }
    }
}

impl<'a> Compiler<'a> {
    /// Compiles a mapping of tasks. `prefix` is the name of the called group it belongs to, with
    /// a dot; `parent` the graph around that.
    pub(super) fn graph(
        &mut self,
        tasks: &'a Located,
        path: &str,
        prefix: &str,
        parent: Option<(&Names<'_, 'a>, usize)>,
    ) -> Graph {
        let mut members = Members::default();
        let mapped = parent.is_some_and(|(names, place)| names.members.drafts[place].mapped);
        self.collect(tasks, path, prefix, &[], mapped, &mut members);
        if members.drafts.len() > MAX_TASKS {
            self.error(
                Finding::at(tasks, path, format!("a graph has at most {MAX_TASKS} tasks"))
                    .hint("use `map` for many tasks of one form"),
            );
            return Graph {
                nodes: Vec::new(),
                verdict: Verdict::default(),
                parallelism: None,
                outputs: false,
                spec: kobza_model::Json::Null,
            };
        }
        let edges = self.edges(&members);
        let names = Names { members: &members, edges: &edges, parent };
        let nodes = (0..members.drafts.len()).map(|place| self.node(&names, place)).collect();
        Graph {
            nodes,
            verdict: Verdict::default(),
            parallelism: None,
            outputs: false,
            spec: kobza_model::Json::Null,
        }
    }

    fn collect(
        &mut self,
        tasks: &'a Located,
        path: &str,
        prefix: &str,
        groups: &[usize],
        mapped: bool,
        out: &mut Members<'a>,
    ) {
        for (key, value) in tasks.fields() {
            let path = below(path, &key.text);
            if key.text.contains('.') {
                self.error(
                    Finding::at_key(key, &path, "a task's name must not contain a dot")
                        .hint("a dot separates a group and its task; use `_` or `-`"),
                );
                continue;
            }
            let name = format!("{prefix}{}", key.text);
            if is_plain_group(value) {
                let place = out.groups.len();
                let mut chain = groups.to_vec();
                chain.push(place);
                out.index.insert(name.clone(), Target::Group(place));
                out.groups.push(Group {
                    name: name.clone(),
                    prefix: prefix.to_owned(),
                    value,
                    path: path.clone(),
                    chain: chain.clone(),
                });
                if let Some(inner) = value.get("group").and_then(|g| g.get("tasks")) {
                    let path = format!("{path}.group.tasks");
                    self.collect(inner, &path, &format!("{name}."), &chain, mapped, out);
                }
                continue;
            }
            let place = out.drafts.len();
            out.index.insert(name.clone(), Target::Task(place));
            out.drafts.push(Draft {
                name: name.clone(),
                prefix: prefix.to_owned(),
                key,
                value,
                path: path.clone(),
                groups: groups.to_vec(),
                check_of: None,
                mapped: mapped || value.get("map").is_some(),
            });
            for (number, check) in
                value.get("checks").map_or(&[][..], Located::items).iter().enumerate()
            {
                let path = format!("{path}.checks[{number}]");
                let word = check.get("name").and_then(Located::text).unwrap_or_default();
                let full = format!("{name}.{word}");
                if word.contains('.') || out.index.contains_key(&full) {
                    let at = check.get("name").unwrap_or(check);
                    self.error(
                        Finding::at(at, &below(&path, "name"), "is taken or contains a dot")
                            .hint("give each check of a task a name of its own"),
                    );
                    continue;
                }
                out.index.insert(full.clone(), Target::Task(out.drafts.len()));
                out.drafts.push(Draft {
                    name: full,
                    prefix: prefix.to_owned(),
                    key,
                    value: check,
                    path,
                    groups: groups.to_vec(),
                    check_of: Some(place),
                    mapped,
                });
            }
        }
    }
}
