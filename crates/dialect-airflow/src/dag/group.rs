//! Task groups: prefixes of names, and what is mapped as one.

use kobza_model::Json;

use super::{DagError, ExpandInput, Operator};

/// A group of tasks and groups. The root has no id.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskGroup {
    pub id: Option<String>,
    pub children: Vec<Child>,
    /// What the group is mapped over, if it is.
    pub expand: Option<ExpandInput>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Child {
    /// A task's id.
    Task(String),
    Group(TaskGroup),
}

impl TaskGroup {
    pub(super) fn flat(tasks: &[Operator]) -> Self {
        let children = tasks.iter().map(|task| Child::Task(task.task_id.clone())).collect();
        Self { id: None, children, expand: None }
    }

    pub(super) fn read(group: &Json, field: &str) -> Result<Self, DagError> {
        let id = group["_group_id"].as_str().map(str::to_owned);
        let mut children = Vec::new();
        for (name, child) in group["children"].as_object().into_iter().flatten() {
            let place = format!("{field}.children[{name:?}]");
            match (child[0].as_str(), &child[1]) {
                (Some("operator"), Json::String(task)) => children.push(Child::Task(task.clone())),
                (Some("taskgroup"), group) => {
                    children.push(Child::Group(Self::read(group, &place)?));
                }
                _ => return Err(DagError::new(place, "it is neither an operator nor a group")),
            }
        }
        let expand = match group["is_mapped"].as_bool() {
            Some(true) => {
                let place = format!("{field}.expand_input");
                Some(ExpandInput::read(&group["expand_input"], &place)?)
            }
            _ => None,
        };
        Ok(Self { id, children, expand })
    }

    /// Calls `see` with each task's id and the mapped groups around it, outermost first.
    pub fn walk<'a>(&'a self, see: &mut impl FnMut(&'a str, &[&'a TaskGroup])) {
        let mut around = Vec::new();
        self.walk_inside(&mut around, see);
    }

    fn walk_inside<'a>(
        &'a self,
        around: &mut Vec<&'a TaskGroup>,
        see: &mut impl FnMut(&'a str, &[&'a TaskGroup]),
    ) {
        if self.expand.is_some() {
            around.push(self);
        }
        for child in &self.children {
            match child {
                Child::Task(task) => see(task, around),
                Child::Group(group) => group.walk_inside(around, see),
            }
        }
        if self.expand.is_some() {
            around.pop();
        }
    }
}
