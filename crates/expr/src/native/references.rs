//! Which names a template looks at, found without rendering it.

use std::collections::{BTreeSet, HashSet};

/// Dotted names such as `tasks.extract.result`, as far as they are constant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References(BTreeSet<String>);

/// Which upstream tasks a template looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskReferences<'a> {
    /// `tasks` is used in a way that does not tell which.
    Any,
    /// The dotted paths after `tasks.`.
    Paths(Vec<&'a str>),
}

impl References {
    pub(super) fn new(names: HashSet<String>) -> Self {
        // What the engine offers to every template is no reference to the context.
        const BUILT_IN: [&str; 5] = ["range", "dict", "namespace", "loop", "self"];
        Self(
            names
                .into_iter()
                .filter(|name| !BUILT_IN.contains(&name.split('.').next().unwrap_or("")))
                .collect(),
        )
    }

    /// The first parts of all names, each once, in order.
    #[must_use]
    pub fn roots(&self) -> BTreeSet<&str> {
        self.0.iter().map(|name| name.split('.').next().unwrap_or("")).collect()
    }

    /// All dotted names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    #[must_use]
    pub fn uses(&self, root: &str) -> bool {
        self.0.iter().any(|name| name.split('.').next() == Some(root))
    }

    #[must_use]
    pub fn tasks(&self) -> TaskReferences<'_> {
        if self.0.contains("tasks") {
            return TaskReferences::Any;
        }
        TaskReferences::Paths(self.below("tasks").collect())
    }

    /// What follows `root.` in names that begin with it: for `var`, the variables' names with
    /// whatever is read of them.
    pub fn below<'a>(&'a self, root: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter_map(move |name| name.strip_prefix(root)?.strip_prefix('.'))
    }

    /// Adds another template's names.
    pub fn extend(&mut self, other: &Self) {
        self.0.extend(other.0.iter().cloned());
    }
}
