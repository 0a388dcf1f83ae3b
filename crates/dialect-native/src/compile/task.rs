//! A task as a node: its call, gate, expansion, limits, retries.

use kobza_expr::native::{Mode, TaskReferences, check_expression};
use kobza_model::{
    Backoff, Cause, Edge, Expansion, ExpansionAt, ExpansionBy, Gate, Instances, Json, Leaf,
    LimitUse, Node, NodeNo, Outcome, Retry, Template, TemplateBody, TemplateNo, ZeroLength,
};

use super::edges::{is_setup, is_warning};
use super::graph::{Draft, Names, Target, kind_of};
use super::templates::{Collected, Scope};
use super::{Compiler, count, flag, gates, to_json, words};
use crate::diagnostic::{shown, suggest};
use crate::document::{Located, Tree};
use crate::quantity::{parse_duration_ms, parse_size};
use crate::shape::{Finding, below};
use crate::spec::{CacheSpec, CheckSpec, LeafSpec, MapSpec, NodeSpec};

/// Most instances of one mapped task.
pub(crate) const MAX_INSTANCES: u32 = 1_000_000;

impl<'a> Compiler<'a> {
    pub(super) fn node(&mut self, names: &Names<'_, 'a>, place: usize) -> Node {
        let draft = &names.members.drafts[place];
        let value = draft.value;
        let path = draft.path.as_str();
        let scope = Scope::task(names, place, draft.mapped);
        let kind = kind_of(value);
        let (call, mut spec) = if kind == "group" {
            self.called_group(names, place)
        } else {
            self.leaf(value, path, &draft.name, &scope, draft.check_of.is_some())
        };
        let mut collected = Collected { reads: std::mem::take(&mut spec.reads) };
        let expansion = self.expansion(names, place, &scope, &mut collected, &mut spec);
        if let Some(cache) = value.get("cache")
            && let Some(key) = cache.get("key")
        {
            self.template(key, &format!("{path}.cache.key"), Mode::Text, &scope, &mut collected);
            spec.cache = Some(CacheSpec {
                key: format!("{}/{}/{}", self.name(), draft.name, key.text().unwrap_or_default()),
                ttl_ms: cache.get("ttl").and_then(parse_duration_ms),
            });
        }
        spec.reads = collected.reads;
        let guard = spec.when.is_some() || spec.cache.is_some();
        if let Some(task) = draft.check_of {
            let checked = &names.members.drafts[task];
            spec.check = Some(CheckSpec {
                name: value.get("name").and_then(Located::text).unwrap_or_default().to_owned(),
                task: checked.name.clone(),
                assets: texts(checked.value.get("produces")),
                blocking: !is_warning(draft),
            });
        }
        if !guard && spec.map.is_none() {
            spec.reads = crate::spec::Reads::default();
        }
        let teardown = value.get("teardown").is_some();
        let arguments = if spec == NodeSpec::default() { Json::Null } else { to_json(&spec) };
        let hooks = self.hooks(value, path, Some(draft));
        Node {
            name: draft.name.clone(),
            call,
            gate: self.gate(names, place),
            edges: names.edges[place]
                .iter()
                .map(|edge| Edge {
                    upstream: node_no(edge.upstream),
                    class: edge.class,
                    instances: edge.instances,
                })
                .collect(),
            guard,
            expansion,
            limits: self.limits(value, path),
            priority: self
                .setting(value, "priority")
                .and_then(Located::integer)
                .and_then(|n| i32::try_from(n).ok())
                .unwrap_or(0),
            retry: self.retry(value),
            attempt_timeout_ms: self.setting(value, "timeout").and_then(parse_duration_ms),
            timeout_ms: self.setting(value, "total_timeout").and_then(parse_duration_ms),
            hooks,
            continue_on: if flag(value, "continue_on_failure") {
                vec![Outcome::Failed]
            } else {
                Vec::new()
            },
            daemon: false,
            ignorable: is_warning(draft) || (teardown && !flag(value, "must_succeed")),
            arguments,
            produces: texts(value.get("produces")),
            consumes: texts(value.get("consumes")),
        }
    }

    fn name(&self) -> &'a str {
        self.root.get("name").and_then(Located::text).unwrap_or_default()
    }

    /// A group with a scope of its own.
    fn called_group(&mut self, names: &Names<'_, 'a>, place: usize) -> (TemplateNo, NodeSpec) {
        let draft = &names.members.drafts[place];
        let call = self.reserve(&draft.name);
        let mut spec = NodeSpec::default();
        self.when(draft.value, &draft.path, &Scope::task(names, place, draft.mapped), &mut spec);
        if let Some(group) = draft.value.get("group")
            && let Some(tasks) = group.get("tasks")
        {
            let path = format!("{}.group.tasks", draft.path);
            let prefix = format!("{}.", draft.name);
            let mut graph = self.graph(tasks, &path, &prefix, Some((names, place)));
            graph.verdict.fail_fast = flag(group, "fail_fast");
            graph.parallelism = count(group, "parallelism");
            self.templates[call.index()].body = TemplateBody::Graph(graph);
        }
        (call, spec)
    }

    /// A leaf template, and what is asked before it runs.
    pub(super) fn leaf(
        &mut self,
        value: &'a Located,
        path: &str,
        name: &str,
        scope: &Scope<'_, 'a>,
        check: bool,
    ) -> (TemplateNo, NodeSpec) {
        let mut collected = Collected::default();
        let (kind, body) = self.body(value, kind_of(value), path, scope, &mut collected, check);
        let mut leaf = LeafSpec { body, ..LeafSpec::default() };
        if matches!(kind, "shell" | "python" | "sql" | "http") {
            self.process(value, path, scope, &mut collected, &mut leaf);
        }
        leaf.reads = collected.reads;
        let call = TemplateNo(u32::try_from(self.templates.len()).unwrap_or(u32::MAX));
        let spec = if kind == "noop" { Json::Null } else { to_json(&leaf) };
        self.templates.push(Template {
            name: name.to_owned(),
            body: TemplateBody::Leaf(Leaf { kind: kind.to_owned(), spec }),
        });
        let mut node = NodeSpec::default();
        self.when(value, path, scope, &mut node);
        (call, node)
    }

    fn when(&mut self, value: &'a Located, path: &str, scope: &Scope<'_, 'a>, spec: &mut NodeSpec) {
        let Some(when) = value.get("when") else { return };
        let mut collected = Collected { reads: std::mem::take(&mut spec.reads) };
        self.expression(when, &below(path, "when"), scope, &mut collected);
        spec.reads = collected.reads;
        spec.when = when.scalar();
    }

    /// What processes have in common.
    fn process(
        &mut self,
        value: &'a Located,
        path: &str,
        scope: &Scope<'_, 'a>,
        out: &mut Collected,
        leaf: &mut LeafSpec,
    ) {
        let sources = [
            (self.root.get("env"), "env".to_owned()),
            (self.defaults.and_then(|d| d.get("env")), "defaults.env".to_owned()),
            (value.get("env"), below(path, "env")),
        ];
        for (env, path) in sources {
            let Some(env) = env else { continue };
            self.json_template(env, &path, scope, out);
            for (key, item) in env.fields() {
                if key.text.contains('=') || key.text.starts_with("KOBZA_") {
                    self.error(
                        Finding::at_key(key, &below(&path, &key.text), "is no free variable name")
                            .hint("a name has no `=` and does not begin with KOBZA_"),
                    );
                }
                leaf.env.retain(|(name, _)| *name != key.text);
                leaf.env.push((key.text.clone(), item.scalar().unwrap_or_default()));
            }
        }
        if let Some(folder) = self.setting(value, "folder") {
            self.template(folder, &below(path, "folder"), Mode::Text, scope, out);
            leaf.folder = folder.text().map(str::to_owned);
        }
        leaf.user = self.setting(value, "user").and_then(Located::text).map(str::to_owned);
        if let Some(umask) = self.setting(value, "umask") {
            let text = umask.text().unwrap_or_default();
            leaf.umask = u32::from_str_radix(text, 8).ok().filter(|mask| *mask <= 0o777);
            if leaf.umask.is_none() {
                self.error(
                    Finding::at(umask, &below(path, "umask"), "is no umask")
                        .hint("write three octal digits in quotes, such as \"022\""),
                );
            }
        }
        let size = |key: &str| self.setting(value, key).and_then(parse_size);
        leaf.memory_bytes = size("memory");
        leaf.log_bytes = size("log_limit");
        leaf.output_bytes = size("output_limit");
        leaf.cpu_seconds =
            self.setting(value, "cpu_time").and_then(parse_duration_ms).map(|ms| ms.div_ceil(1000));
        leaf.grace_ms = self.setting(value, "grace").and_then(parse_duration_ms);
        leaf.skip_exit_codes = value
            .get("skip_exit_codes")
            .map(|codes| {
                codes.items().iter().filter_map(|c| i32::try_from(c.integer()?).ok()).collect()
            })
            .unwrap_or_default();
        leaf.capture = matches!(leaf.body, crate::spec::Body::Shell { .. })
            && value.get("capture").and_then(Located::bool).unwrap_or(true);
    }

    fn gate(&mut self, names: &Names<'_, 'a>, place: usize) -> Gate {
        let draft = &names.members.drafts[place];
        if draft.value.get("teardown").is_some() {
            if let Some(rule) = draft.value.get("rule") {
                self.error(
                    Finding::at(rule, &below(&draft.path, "rule"), "a teardown has its own rule")
                        .hint("remove `rule`"),
                );
            }
            return gates::teardown();
        }
        let rule = draft.value.get("rule").and_then(Located::text);
        if names.edges[place].is_empty() {
            if let (Some(word), Some(at)) = (rule, draft.value.get("rule"))
                && word != "always"
            {
                self.warnings.push(
                    Finding::at(
                        at,
                        &below(&draft.path, "rule"),
                        "a rule without `needs` decides nothing",
                    )
                    .hint("add `needs`, or remove `rule`"),
                );
            }
            return Gate::always();
        }
        gates::of_rule(rule.unwrap_or("all_succeeded")).unwrap_or_else(Gate::all_succeeded)
    }

    fn expansion(
        &mut self,
        names: &Names<'_, 'a>,
        place: usize,
        scope: &Scope<'_, 'a>,
        out: &mut Collected,
        spec: &mut NodeSpec,
    ) -> Option<Expansion> {
        let draft = &names.members.drafts[place];
        let map = draft.value.get("map")?;
        let path = below(&draft.path, "map");
        if is_setup(draft) || draft.value.get("teardown").is_some() {
            self.error(
                Finding::at(map, &path, "setup and teardown tasks cannot be mapped")
                    .hint("put them into a group, and map the group"),
            );
        }
        // Its own items are what is being computed here.
        let outer = names.parent.is_some_and(|(n, p)| n.members.drafts[p].mapped);
        let own = Scope::task(names, place, outer);
        let (source, by) = self.items(names, draft, map, &path, &own, out);
        let aligned = names.edges[place].iter().any(|edge| edge.instances == Instances::Aligned);
        let at = if aligned || matches!(by, ExpansionBy::Like(_)) {
            ExpansionAt::Upstream(self.length_upstreams(names, place, &source))
        } else {
            ExpansionAt::Gate
        };
        let _ = scope;
        spec.map = Some(source);
        Some(Expansion {
            at,
            by,
            zero: match map.get("zero").and_then(Located::text) {
                Some("empty") => ZeroLength::Succeeded,
                _ => ZeroLength::Skipped,
            },
            window: if map.is_map() { count(map, "window") } else { None },
            fail_fast: map.is_map() && flag(map, "fail_fast"),
        })
    }

    fn items(
        &mut self,
        names: &Names<'_, 'a>,
        draft: &Draft<'a>,
        map: &'a Located,
        path: &str,
        scope: &Scope<'_, 'a>,
        out: &mut Collected,
    ) -> (MapSpec, ExpansionBy) {
        if let Some(range) = map.get("range") {
            return match range.integer().and_then(|n| u32::try_from(n).ok()) {
                Some(length) => (MapSpec::Range(length), ExpansionBy::Static(length)),
                None => {
                    self.expression(range, &below(path, "range"), scope, out);
                    let text = range.text().unwrap_or_default().to_owned();
                    (MapSpec::RangeOf(text), ExpansionBy::Ask)
                }
            };
        }
        if let Some(like) = map.get("like") {
            let name = like.text().unwrap_or_default();
            if let Some(Target::Task(leader)) = names.members.find(&draft.prefix, name)
                && names.members.drafts[leader].value.get("map").is_some()
            {
                let place = leader;
                let number = u32::try_from(place).unwrap_or(u32::MAX);
                return (MapSpec::Like(number), ExpansionBy::Like(node_no(place)));
            }
            let (message, hint) = match names.members.find(&draft.prefix, name) {
                Some(_) => (
                    format!("`{}` has no `map` of its own", shown(name)),
                    Some("name a mapped task, or write the items here".to_owned()),
                ),
                None => (
                    format!("there is no task `{}`", shown(name)),
                    suggest(name, names.members.visible(&draft.prefix)),
                ),
            };
            self.error(Finding::at(like, &below(path, "like"), message).maybe_hint(hint));
            return (MapSpec::Range(0), ExpansionBy::Static(0));
        }
        let over = map.get("over").unwrap_or(map);
        match &over.tree {
            Tree::List(items) => {
                let length = u32::try_from(items.len()).unwrap_or(u32::MAX);
                if length > MAX_INSTANCES {
                    let message = format!("a map has at most {MAX_INSTANCES} items");
                    self.error(Finding::at(over, path, message));
                }
                self.json_template(over, path, scope, out);
                let values: Vec<Json> = items.iter().map(Located::json).collect();
                let source = if has_templates(over) {
                    MapSpec::Templates(values)
                } else {
                    MapSpec::Items(values)
                };
                (source, ExpansionBy::Static(length))
            }
            _ => {
                self.expression(over, path, scope, out);
                let text = over.text().unwrap_or_default().to_owned();
                (MapSpec::Over(text), ExpansionBy::Ask)
            }
        }
    }

    /// Tasks of this graph whose outputs the length depends on.
    fn length_upstreams(
        &self,
        names: &Names<'_, 'a>,
        place: usize,
        source: &MapSpec,
    ) -> Vec<NodeNo> {
        let (MapSpec::Over(text) | MapSpec::RangeOf(text)) = source else { return Vec::new() };
        let Ok(references) = check_expression(text) else { return Vec::new() };
        let reads = match references.tasks() {
            TaskReferences::Any => names.every_ancestor(place),
            TaskReferences::Paths(paths) => {
                paths.into_iter().filter_map(|p| names.read(place, p).ok()).flatten().collect()
            }
        };
        let mut nodes: Vec<NodeNo> =
            reads.iter().filter(|r| r.up == 0).map(|r| NodeNo(r.node)).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    fn limits(&mut self, value: &'a Located, path: &str) -> Vec<LimitUse> {
        let Some(limits) = self.setting(value, "limits") else { return Vec::new() };
        let mut out = Vec::new();
        let one = std::slice::from_ref(limits);
        let list = if limits.is_list() { limits.items() } else { one };
        for item in list {
            let uses: Vec<(String, u32)> = match &item.tree {
                Tree::Text(name) => vec![(name.clone(), 1)],
                _ => item
                    .fields()
                    .iter()
                    .map(|(key, weight)| {
                        let weight = weight.integer().and_then(|n| u32::try_from(n).ok());
                        (key.text.clone(), weight.unwrap_or(1))
                    })
                    .collect(),
            };
            for (limit, weight) in uses {
                let path = below(path, "limits");
                match self.pools.iter().find(|pool| pool.name == limit) {
                    Some(pool) if weight > pool.capacity => {
                        let message = format!(
                            "takes {weight} of `{}`, which has only {}",
                            shown(&limit),
                            pool.capacity
                        );
                        self.findings
                            .push(Finding::at(item, &path, message).hint("it would wait for ever"));
                    }
                    Some(_) => {}
                    None => {
                        let message = format!("this file declares no pool `{}`", shown(&limit));
                        let hint = "declare it under `pools`, unless the server has it";
                        self.warnings.push(Finding::at(item, &path, message).hint(hint));
                    }
                }
                out.push(LimitUse { limit, weight, while_waiting: false });
            }
        }
        out
    }

    fn retry(&self, value: &'a Located) -> Option<Retry> {
        let retries = self.setting(value, "retries")?;
        let number = |n: i64| u32::try_from(n).unwrap_or(0);
        if let Some(limit) = retries.integer() {
            return (limit > 0).then(|| Retry {
                limit: number(limit),
                backoff: Backoff::default(),
                causes: Vec::new(),
                exit_codes: Vec::new(),
                ask: false,
            });
        }
        let limit = number(retries.get("limit").and_then(Located::integer).unwrap_or(0));
        if limit == 0 {
            return None;
        }
        let exponential = retries.get("backoff").and_then(Located::text) == Some("exponential");
        let delay = retries.get("delay").and_then(parse_duration_ms);
        let on = retries.get("on").map_or(&[][..], Located::items);
        Some(Retry {
            limit,
            backoff: Backoff {
                delay_ms: delay.unwrap_or(if retries.get("backoff").is_some() { 1000 } else { 0 }),
                factor: if exponential {
                    retries.get("factor").and_then(Located::number).unwrap_or(2.0)
                } else {
                    1.0
                },
                max_ms: retries.get("max").and_then(parse_duration_ms),
                jitter: retries.get("jitter").and_then(Located::number).unwrap_or(0.0),
            },
            causes: on.iter().filter_map(|c| Cause::from_word(c.text()?)).collect(),
            exit_codes: on.iter().filter_map(|c| i32::try_from(c.integer()?).ok()).collect(),
            ask: false,
        })
    }
}

fn node_no(place: usize) -> NodeNo {
    NodeNo(u32::try_from(place).unwrap_or(u32::MAX))
}

fn texts(value: Option<&Located>) -> Vec<String> {
    words(value).into_iter().map(|(_, text)| text.to_owned()).collect()
}

fn has_templates(value: &Located) -> bool {
    match &value.tree {
        Tree::Text(text) => text.contains("{{") || text.contains("{%"),
        Tree::List(items) => items.iter().any(has_templates),
        Tree::Map(fields) => fields.iter().any(|(_, item)| has_templates(item)),
        _ => false,
    }
}
