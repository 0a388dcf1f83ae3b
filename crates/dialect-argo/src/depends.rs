//! `depends` and `dependencies` of DAG tasks, as boolean trees over upstream outcomes.

use kobza_model::{Cause, NodeNo, Outcome, Predicate, Quantifier, Tree};

/// What a reference inside `depends` means by itself: the task's name, and whether it goes on
/// after errors and failures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Upstream {
    pub(crate) node: NodeNo,
    pub(crate) continue_on_error: bool,
    pub(crate) continue_on_failed: bool,
}

/// Causes that Argo calls Error rather than Failed: not the user's code.
pub(crate) const ERROR_CAUSES: &[Cause] =
    &[Cause::Infrastructure, Cause::Lost, Cause::Guard, Cause::Template];

fn is(node: NodeNo, outcomes: &[Outcome]) -> Predicate {
    Predicate {
        node,
        quantifier: Quantifier::Summary,
        outcomes: outcomes.to_vec(),
        causes: Vec::new(),
        except_causes: Vec::new(),
        or_daemon: false,
    }
}

/// It succeeded, or is a daemon that is up.
pub(crate) fn up(node: NodeNo) -> Tree {
    Tree::Is(Predicate { or_daemon: true, ..is(node, &[Outcome::Succeeded]) })
}

/// The statement `NAME.WORD`.
fn statement(node: NodeNo, word: &str) -> Option<Tree> {
    let failed = [Outcome::Failed, Outcome::UpstreamFailed, Outcome::Cancelled];
    Some(Tree::Is(match word {
        "Succeeded" => is(node, &[Outcome::Succeeded]),
        "Failed" => Predicate { except_causes: ERROR_CAUSES.to_vec(), ..is(node, &failed) },
        "Errored" => Predicate { causes: ERROR_CAUSES.to_vec(), ..is(node, &failed) },
        "Skipped" => {
            Predicate { except_causes: vec![Cause::Gate], ..is(node, &[Outcome::Skipped]) }
        }
        "Omitted" => Predicate { causes: vec![Cause::Gate], ..is(node, &[Outcome::Skipped]) },
        "Daemoned" => Predicate { or_daemon: true, ..is(node, &[]) },
        "AnySucceeded" => {
            Predicate { quantifier: Quantifier::AnyInstance, ..is(node, &[Outcome::Succeeded]) }
        }
        "AllFailed" => Predicate {
            quantifier: Quantifier::AllInstances,
            except_causes: ERROR_CAUSES.to_vec(),
            ..is(node, &failed)
        },
        _ => return None,
    }))
}

/// What a bare name means.
fn bare(upstream: Upstream) -> Tree {
    let mut words = vec!["Succeeded", "Skipped", "Daemoned"];
    words.extend(upstream.continue_on_error.then_some("Errored"));
    words.extend(upstream.continue_on_failed.then_some("Failed"));
    Tree::Any(words.into_iter().filter_map(|word| statement(upstream.node, word)).collect())
}

/// Reads a `depends` text. `find` answers for a task's name.
pub(crate) fn parse(text: &str, find: &dyn Fn(&str) -> Option<Upstream>) -> Result<Tree, String> {
    let mut parser = Parser { rest: text, find, depth: 0 };
    let tree = parser.any()?;
    parser.space();
    if parser.rest.is_empty() {
        Ok(tree)
    } else {
        Err(format!("cannot read {:?} in depends", parser.rest))
    }
}

/// The gate of a `dependencies` list.
pub(crate) fn all(
    names: &[String],
    find: &dyn Fn(&str) -> Option<Upstream>,
) -> Result<Tree, String> {
    names
        .iter()
        .map(|name| find(name).map(bare).ok_or_else(|| unknown(name)))
        .collect::<Result<_, _>>()
        .map(Tree::All)
}

fn unknown(name: &str) -> String {
    format!("dependency '{name}' not defined")
}

struct Parser<'a> {
    rest: &'a str,
    find: &'a dyn Fn(&str) -> Option<Upstream>,
    depth: usize,
}

impl Parser<'_> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn accept(&mut self, words: &[&str]) -> bool {
        self.space();
        for word in words {
            if let Some(rest) = self.rest.strip_prefix(word) {
                let wordy = word.ends_with(char::is_alphabetic);
                if !(wordy && rest.starts_with(|c: char| c.is_alphanumeric() || c == '-')) {
                    self.rest = rest;
                    return true;
                }
            }
        }
        false
    }

    fn any(&mut self) -> Result<Tree, String> {
        let mut parts = vec![self.both()?];
        while self.accept(&["||", "or"]) {
            parts.push(self.both()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Tree::Any(parts) })
    }

    fn both(&mut self) -> Result<Tree, String> {
        let mut parts = vec![self.one()?];
        while self.accept(&["&&", "and"]) {
            parts.push(self.one()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Tree::All(parts) })
    }

    fn one(&mut self) -> Result<Tree, String> {
        self.depth += 1;
        if self.depth > 100 {
            return Err("depends is nested too deeply".to_owned());
        }
        let tree = if self.accept(&["!", "not"]) {
            Tree::Not(Box::new(self.one()?))
        } else if self.accept(&["("]) {
            let inner = self.any()?;
            if !self.accept(&[")"]) {
                return Err("depends has an unclosed parenthesis".to_owned());
            }
            inner
        } else {
            self.reference()?
        };
        self.depth -= 1;
        Ok(tree)
    }

    fn reference(&mut self) -> Result<Tree, String> {
        self.space();
        let end = self
            .rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'))
            .unwrap_or(self.rest.len());
        let name = &self.rest[..end];
        if name.is_empty() {
            return Err(format!("depends expects a task's name at {:?}", self.rest));
        }
        let upstream = (self.find)(name).ok_or_else(|| unknown(name))?;
        self.rest = &self.rest[end..];
        let Some(after) = self.rest.strip_prefix('.') else { return Ok(bare(upstream)) };
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let word = &after[..end];
        self.rest = &after[end..];
        statement(upstream.node, word).ok_or_else(|| {
            format!(
                "task result '{word}' for task '{name}' is invalid; one of Succeeded, Failed, \
                 Errored, Skipped, Omitted, Daemoned, AnySucceeded, AllFailed"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(name: &str) -> Option<Upstream> {
        let place = ["A", "B", "task-c"].iter().position(|n| *n == name)?;
        Some(Upstream {
            node: NodeNo(place as u32),
            continue_on_error: false,
            continue_on_failed: name == "B",
        })
    }

    /// Evaluates a tree as the engine does, over (outcome, cause) of single tasks.
    fn holds(tree: &Tree, tasks: &[(Outcome, Cause)]) -> bool {
        match tree {
            Tree::All(parts) => parts.iter().all(|p| holds(p, tasks)),
            Tree::Any(parts) => parts.iter().any(|p| holds(p, tasks)),
            Tree::Not(part) => !holds(part, tasks),
            Tree::Is(p) => {
                let (outcome, cause) = tasks[p.node.index()];
                p.quantifier == Quantifier::Summary
                    && p.outcomes.contains(&outcome)
                    && (p.causes.is_empty() || p.causes.contains(&cause))
                    && !p.except_causes.contains(&cause)
            }
        }
    }

    #[test]
    fn truth_table() {
        let succeeded = (Outcome::Succeeded, Cause::None);
        let failed = (Outcome::Failed, Cause::Code);
        let errored = (Outcome::Failed, Cause::Template);
        let skipped = (Outcome::Skipped, Cause::Guard);
        let omitted = (Outcome::Skipped, Cause::Gate);
        for (text, a, b, wanted) in [
            ("A", succeeded, failed, true),
            ("A", skipped, failed, true),
            ("A", omitted, failed, false),
            ("A", failed, failed, false),
            ("B", succeeded, failed, true),
            ("B", succeeded, errored, false),
            ("A && B", succeeded, succeeded, true),
            ("A && B", failed, succeeded, false),
            ("A || B", failed, succeeded, true),
            ("A.Failed", failed, succeeded, true),
            ("A.Failed", errored, succeeded, false),
            ("A.Errored", errored, succeeded, true),
            ("A.Skipped", skipped, succeeded, true),
            ("A.Skipped", omitted, succeeded, false),
            ("A.Omitted", omitted, succeeded, true),
            ("!A.Succeeded && (A.Failed || A.Errored)", errored, succeeded, true),
            ("not A or B.Succeeded", succeeded, succeeded, true),
            ("A.Succeeded and B.Failed", succeeded, failed, true),
            ("A.AnySucceeded || A.AllFailed", succeeded, failed, false),
        ] {
            let tree = parse(text, &find).expect(text);
            assert_eq!(holds(&tree, &[a, b, succeeded]), wanted, "{text} with {a:?} {b:?}");
        }
        let tree = parse("task-c.Succeeded", &find).expect("a hyphen is part of a name");
        assert!(holds(&tree, &[failed, failed, succeeded]));
    }

    #[test]
    fn refusals() {
        for (text, part) in [
            ("D", "dependency 'D' not defined"),
            ("A.Nonsense", "task result 'Nonsense' for task 'A' is invalid"),
            ("(A", "unclosed"),
            ("A &&", "expects a task's name"),
            ("A B", "cannot read"),
            ("", "expects"),
        ] {
            let error = parse(text, &find).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(parse(&"(".repeat(100_000), &find).is_err());
    }
}
