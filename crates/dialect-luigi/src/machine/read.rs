//! Lists and graphs of many tasks, in pages: a list of fifty thousand tasks must not hold up the
//! workers, so a reader asks for one piece of the reply after the other.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use super::args::Args;
use super::state::{NodeNo, Status};
use super::{LuigiMachine, Refused, object};
use crate::pyjson::{Value, write_string};

/// Tasks looked at for one piece.
const PAGE: usize = 100;
/// Lists that may be under way at once; the oldest is given up.
const MAX_SESSIONS: usize = 32;

/// Dependencies looked at for one piece, before the first task of a filtered list can be shown.
const STEPS: usize = 2000;

/// Severity of what a pending task waits for, from nothing to a disabled task.
const UPSTREAM: [&str; 5] =
    ["", "UPSTREAM_RUNNING", "UPSTREAM_MISSING_INPUT", "UPSTREAM_FAILED", "UPSTREAM_DISABLED"];
const ABSENT: u8 = u8::MAX;

/// Lists under way, by number.
#[derive(Debug, Default)]
pub(super) struct Reads {
    next: u64,
    open: BTreeMap<u64, Cursor>,
}

#[derive(Debug)]
enum Cursor {
    Done,
    List(List),
    Graph(Box<Traversal>),
}

/// Tasks one after the other.
#[derive(Debug)]
struct List {
    kind: ListKind,
    /// `None`: all tasks in order of first sight.
    status: Option<Status>,
    /// Statuses that follow, for a search.
    rest: VecDeque<Status>,
    after: u64,
    until: u64,
    upstream: Option<Upstream>,
    terms: Vec<String>,
    limit: Option<u64>,
    /// More tasks may be found than are shown: then the reply is only their number.
    tentative: bool,
    written: u64,
    first: bool,
}

/// What every pending task waits for at worst, found out piece by piece.
#[derive(Debug)]
struct Upstream {
    /// Of the tasks to be shown; `None`: there is no such severity.
    wanted: Option<u8>,
    /// By place.
    table: Vec<u8>,
    stack: Vec<NodeNo>,
    /// The last pending task that was begun with.
    after: u64,
}

#[derive(Debug, PartialEq)]
enum ListKind {
    Tasks,
    /// By status, ids that contain the text.
    Search(String),
}

#[derive(Debug)]
struct Traversal {
    /// Roots still to come: all tasks after this one.
    all_after: Option<u64>,
    until: u64,
    root: Arc<str>,
    queue: VecDeque<Arc<str>>,
    /// Only asked, never walked.
    seen: HashSet<Arc<str>>,
    inverse: bool,
    include_done: bool,
    /// Nodes of this root's graph.
    count: u64,
    first: bool,
}

impl LuigiMachine {
    /// The whole reply at once.
    pub(super) fn read_whole(
        &mut self,
        method: &str,
        args: &Args,
        now: f64,
    ) -> Result<String, Refused> {
        let (mut out, mut cursor) = self.start_read(method, args, now)?;
        while !matches!(cursor, Cursor::Done) {
            if let Some(whole) = self.advance(&mut cursor, &mut out) {
                return Ok(whole);
            }
        }
        Ok(out)
    }

    /// One piece: `{method, data}` begins, `{session}` goes on. The pieces' texts together are the
    /// reply, unless the last one says `replace`; only pieces that are `tentative` are followed by
    /// such a one.
    pub(super) fn read_page(&mut self, args: &Args, now: f64) -> Result<Value, Refused> {
        let (mut out, mut cursor, number) = match args.get("session") {
            Value::Int(number) => {
                let number = number.cast_unsigned();
                let cursor = self.reads.open.remove(&number).ok_or_else(|| {
                    Refused::Bad("too many lists are being read at once; try again".into())
                })?;
                (String::new(), cursor, number)
            }
            _ => {
                let data = args.text("data").unwrap_or_default().to_owned();
                let (inner, _) = Args::read(&kobza_model::Json::String(data))?;
                let method = args.text("method").unwrap_or_default();
                let (out, cursor) = self.start_read(method, &inner, now)?;
                self.reads.next += 1;
                (out, cursor, self.reads.next)
            }
        };
        let mut replace = None;
        if !matches!(cursor, Cursor::Done) {
            replace = self.advance(&mut cursor, &mut out);
        }
        let more = !matches!(cursor, Cursor::Done) && replace.is_none();
        if more {
            self.reads.open.insert(number, cursor);
            while self.reads.open.len() > MAX_SESSIONS {
                self.reads.open.pop_first();
            }
        }
        let session = if more { Value::Int(number.cast_signed()) } else { Value::Null };
        let replaces = Value::Bool(replace.is_some());
        let text = Value::Str(replace.unwrap_or(out));
        let tentative = match self.reads.open.get(&number) {
            Some(Cursor::List(list)) => list.tentative,
            _ => false,
        };
        let tentative = Value::Bool(tentative);
        let reply =
            [("text", text), ("session", session), ("replace", replaces), ("tentative", tentative)];
        Ok(object(reply))
    }

    fn start_read(
        &mut self,
        method: &str,
        args: &Args,
        now: f64,
    ) -> Result<(String, Cursor), Refused> {
        let empty = || Ok(("{}".to_owned(), Cursor::Done));
        match method {
            "task_list" => return Ok(self.start_list(args, now)),
            "task_search" => {
                self.prune(now);
                let needle = args.text("task_str").unwrap_or_default().to_owned();
                let mut rest: VecDeque<Status> = Status::ALL.into();
                let status = rest.pop_front();
                let list = List {
                    kind: ListKind::Search(needle),
                    status,
                    rest,
                    after: 0,
                    until: self.next_entered,
                    upstream: None,
                    terms: Vec::new(),
                    limit: None,
                    tentative: false,
                    written: 0,
                    first: true,
                };
                return Ok(("{".to_owned(), Cursor::List(list)));
            }
            _ => {}
        }
        self.prune(now);
        let root = if method == "graph" {
            None
        } else {
            let id = args.id("task_id")?;
            match self.index.find(&id) {
                Some(_) => Some(Arc::from(id)),
                None => return empty(),
            }
        };
        let mut traversal = Traversal {
            all_after: root.is_none().then_some(0),
            until: self.next_seq,
            root: "".into(),
            queue: VecDeque::new(),
            seen: HashSet::new(),
            inverse: method == "inverse_dep_graph",
            include_done: method == "graph" || args.flag_or_true("include_done"),
            count: 0,
            first: true,
        };
        if let Some(root) = root {
            traversal.begin(root);
        }
        Ok(("{".to_owned(), Cursor::Graph(Box::new(traversal))))
    }

    fn start_list(&mut self, args: &Args, now: f64) -> (String, Cursor) {
        let word = args.text("status").unwrap_or_default();
        let upstream = args.text("upstream_status").unwrap_or_default();
        let limit = args.flag_or_true("limit").then(|| {
            let own = args.get("max_shown_tasks").number().filter(|n| *n > 0.0);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "saturates"
            )]
            own.map_or(self.config.max_shown_tasks, |n| n as u64)
        });
        let status = Status::from_word(word);
        let unknown = !word.is_empty() && status.is_none();
        let search = args.text("search");
        let count = match status {
            _ if unknown => 0,
            Some(status) => self.index.status_count(status),
            None => self.index.by_seq.len(),
        } as u64;
        let tentative = limit.is_some_and(|limit| count > limit);
        if tentative && search.is_none_or(str::is_empty) {
            let shown = if upstream.is_empty() { count.cast_signed() } else { -1 };
            return (object([("num_tasks", Value::Int(shown))]).to_string(), Cursor::Done);
        }
        self.prune(now);
        if unknown {
            return ("{}".to_owned(), Cursor::Done);
        }
        let upstream = (!upstream.is_empty()).then(|| {
            let wanted = UPSTREAM.iter().position(|word| *word == upstream);
            Upstream {
                wanted: wanted.and_then(|n| u8::try_from(n).ok()),
                table: vec![ABSENT; self.index.nodes.len()],
                stack: Vec::new(),
                after: 0,
            }
        });
        let terms = search.unwrap_or_default().split_whitespace().map(fold).collect();
        let list = List {
            kind: ListKind::Tasks,
            status,
            rest: VecDeque::new(),
            after: 0,
            until: if status.is_some() { self.next_entered } else { self.next_seq },
            upstream,
            terms,
            limit,
            tentative,
            written: 0,
            first: true,
        };
        ("{".to_owned(), Cursor::List(list))
    }

    /// Appends one piece. A text that comes back replaces all pieces.
    fn advance(&self, cursor: &mut Cursor, out: &mut String) -> Option<String> {
        let done = match cursor {
            Cursor::Done => true,
            Cursor::List(list) => self.advance_list(list, out),
            Cursor::Graph(traversal) => self.advance_graph(traversal, out),
        };
        if !done {
            return None;
        }
        let over = match cursor {
            Cursor::List(list) => list.limit.is_some_and(|limit| list.written > limit).then(|| {
                object([("num_tasks", Value::Int(list.written.cast_signed()))]).to_string()
            }),
            _ => None,
        };
        out.push('}');
        *cursor = Cursor::Done;
        over
    }

    fn advance_list(&self, list: &mut List, out: &mut String) -> bool {
        if let Some(upstream) = &mut list.upstream
            && !self.advance_upstream(upstream)
        {
            return false;
        }
        let range = (Bound::Excluded(list.after), Bound::Excluded(list.until));
        let tasks = match list.status {
            Some(status) => self.index.by_status[status as usize].range(range),
            None => self.index.by_seq.range(range),
        };
        let mut last = None;
        let mut looked = 0;
        for (at, node) in tasks.take(PAGE) {
            last = Some(*at);
            looked += 1;
            let task = self.index.task(*node);
            let wanted = match &list.kind {
                ListKind::Search(needle) => task.id.contains(needle.as_str()),
                ListKind::Tasks => {
                    let shown = match &list.upstream {
                        Some(upstream) if task.status == Status::Pending => {
                            let own = upstream.table.get(*node as usize).copied().unwrap_or(0);
                            Some(own) == upstream.wanted
                        }
                        _ => true,
                    };
                    shown
                        && (list.terms.is_empty() || {
                            let name = fold(&task.display_name());
                            list.terms.iter().all(|term| name.contains(term.as_str()))
                        })
                }
            };
            if !wanted {
                continue;
            }
            if let (ListKind::Search(_), true, Some(status)) = (&list.kind, list.first, list.status)
            {
                if list.written > 0 {
                    out.push_str(", ");
                }
                write_string(out, status.word());
                out.push_str(": {");
            }
            if !list.first {
                out.push_str(", ");
            }
            list.first = false;
            list.written += 1;
            write_string(out, &task.id);
            out.push_str(": ");
            self.write_task(*node, true, false, None, out);
        }
        match last {
            Some(last) if looked == PAGE => {
                list.after = last;
                false
            }
            _ if list.kind == ListKind::Tasks => true,
            _ => {
                if !list.first {
                    out.push('}');
                }
                list.first = true;
                list.after = 0;
                list.status = list.rest.pop_front();
                list.status.is_none()
            }
        }
    }

    fn advance_graph(&self, walk: &mut Traversal, out: &mut String) -> bool {
        for _ in 0..PAGE {
            while walk.queue.is_empty() || walk.count >= self.config.max_graph_nodes {
                walk.queue.clear();
                let Some(after) = walk.all_after else { return true };
                let range = (Bound::Excluded(after), Bound::Excluded(walk.until));
                let Some((seq, node)) = self.index.by_seq.range(range).next() else { return true };
                walk.all_after = Some(*seq);
                let id = self.index.task(*node).id.clone();
                if !walk.seen.contains(&id) {
                    walk.begin(id);
                }
            }
            let Some(id) = walk.queue.pop_front() else { return true };
            if !std::mem::take(&mut walk.first) {
                out.push_str(", ");
            }
            write_string(out, &id);
            out.push_str(": ");
            let is_root = id == walk.root;
            match self.index.find(&id) {
                Some(node) if !self.index.task(node).family.is_empty() => {
                    let mut deps = self.neighbours(node, walk);
                    self.write_task(node, is_root, true, Some(&deps), out);
                    deps.sort();
                    for dep in deps {
                        if walk.seen.insert(dep.clone()) {
                            walk.queue.push_back(dep);
                        }
                    }
                }
                _ => Self::write_missing(&id, is_root, out),
            }
            walk.count += 1;
        }
        false
    }

    fn neighbours(&self, node: NodeNo, walk: &Traversal) -> Vec<Arc<str>> {
        let index = &self.index;
        let wanted = |n: &NodeNo| {
            walk.include_done || index.get(*n).is_none_or(|t| t.status != Status::Done)
        };
        let id = |n: NodeNo| index.nodes[n as usize].id.clone();
        if walk.inverse {
            let above = index.nodes[node as usize].dependents.iter().copied();
            let mut above: Vec<NodeNo> = above.filter(wanted).collect();
            above.sort_by_key(|n| index.task(*n).seq);
            above.into_iter().map(id).collect()
        } else {
            index.task(node).deps.iter().copied().filter(wanted).map(id).collect()
        }
    }

    /// A bounded number of steps; whether the severities of all pending tasks are known.
    fn advance_upstream(&self, upstream: &mut Upstream) -> bool {
        let index = &self.index;
        let Upstream { table, stack, after, .. } = upstream;
        // Tasks may have come since the last piece.
        table.resize(index.nodes.len().max(table.len()), ABSENT);
        for _ in 0..STEPS {
            let Some(node) = stack.pop() else {
                let range = (Bound::Excluded(*after), Bound::Unbounded);
                let mut roots = index.by_status[Status::Pending as usize].range(range);
                let Some((entered, root)) = roots.next() else { return true };
                *after = *entered;
                if table[*root as usize] == ABSENT {
                    stack.push(*root);
                }
                continue;
            };
            let Some(task) = index.get(node) else { continue };
            let own = table[node as usize];
            match task.status {
                Status::Done => {}
                Status::Pending if own == ABSENT && !task.deps.is_empty() => {
                    // Looked at again, after what it depends on.
                    table[node as usize] = 0;
                    stack.push(node);
                    stack.extend(&task.deps);
                }
                status if own == ABSENT => table[node as usize] = severity(status),
                _ if own == 0 && !task.deps.is_empty() => {
                    let known = |d: &NodeNo| match table[*d as usize] {
                        ABSENT => 0,
                        known => known,
                    };
                    table[node as usize] = task.deps.iter().map(known).max().unwrap_or(0);
                }
                _ => {}
            }
        }
        false
    }
}

impl Traversal {
    fn begin(&mut self, root: Arc<str>) {
        self.seen.insert(root.clone());
        self.queue.push_back(root.clone());
        self.root = root;
        self.count = 0;
    }
}

fn severity(status: Status) -> u8 {
    match status {
        Status::Running | Status::BatchRunning => 1,
        Status::Pending => 2,
        Status::Failed => 3,
        Status::Disabled => 4,
        Status::Done | Status::Unknown => 0,
    }
}

/// For comparisons that ignore case.
fn fold(text: &str) -> String {
    text.to_lowercase().replace('ß', "ss").replace('ς', "σ")
}
