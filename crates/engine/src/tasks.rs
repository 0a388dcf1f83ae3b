//! Tasks of a run by number, in pages. A number is never used again, so a run that stays open for
//! years would only grow: tasks that its driver has forgotten leave, and an empty page is freed.

use std::ops::{Index, IndexMut};

use crate::memory::{Task, flag};

/// Tasks of a page. A full page takes some 80 KiB.
const PAGE: usize = 512;

#[derive(Default)]
pub(crate) struct Tasks {
    pages: Vec<Page>,
    len: usize,
}

#[derive(Default)]
struct Page {
    /// All of the page, or none once each of them has left.
    tasks: Vec<Task>,
    gone: usize,
}

impl Tasks {
    /// The number of the next task: also counts those that have left.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn push(&mut self, task: Task) {
        if self.len.is_multiple_of(PAGE) {
            self.pages.push(Page::default());
        }
        if let Some(page) = self.pages.last_mut() {
            page.tasks.push(task);
            self.len += 1;
        }
    }

    /// A number whose task has left, or was never read.
    pub(crate) fn push_gone(&mut self) {
        let mut task = Task::new(0, 0, 0, kobza_model::Timestamp(0));
        task.set(flag::GONE);
        self.push(task);
        self.leave(self.len as u32 - 1);
    }

    pub(crate) fn get(&self, no: u32) -> Option<&Task> {
        let task = self.pages.get(no as usize / PAGE)?.tasks.get(no as usize % PAGE)?;
        (!task.has(flag::GONE)).then_some(task)
    }

    pub(crate) fn has(&self, no: u32) -> bool {
        self.get(no).is_some()
    }

    /// Numbers and tasks of those that are there.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Task)> {
        let pages = self.pages.iter().enumerate();
        pages.flat_map(|(place, page)| {
            let tasks = page.tasks.iter().enumerate();
            tasks
                .filter(|(_, task)| !task.has(flag::GONE))
                .map(move |(slot, task)| ((place * PAGE + slot) as u32, task))
        })
    }

    /// Frees what a task takes.
    pub(crate) fn remove(&mut self, no: u32) {
        if self.has(no) {
            let task = &mut self[no as usize];
            task.more = None;
            task.set(flag::GONE);
            self.leave(no);
        }
    }

    fn leave(&mut self, no: u32) {
        let page = &mut self.pages[no as usize / PAGE];
        page.gone += 1;
        if page.gone == PAGE {
            page.tasks = Vec::new();
        }
    }
}

impl Index<usize> for Tasks {
    type Output = Task;

    fn index(&self, no: usize) -> &Task {
        &self.pages[no / PAGE].tasks[no % PAGE]
    }
}

impl IndexMut<usize> for Tasks {
    fn index_mut(&mut self, no: usize) -> &mut Task {
        &mut self.pages[no / PAGE].tasks[no % PAGE]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_tasks_that_left_are_freed() {
        let mut tasks = Tasks::default();
        for no in 0..3 * PAGE as u32 {
            tasks.push(Task::new(0, no, 0, kobza_model::Timestamp(0)));
        }
        for no in PAGE as u32..2 * PAGE as u32 {
            tasks.remove(no);
            tasks.remove(no);
        }
        assert!(tasks.pages[1].tasks.is_empty());
        tasks.remove(3);
        tasks.push_gone();
        assert_eq!(tasks.len(), 3 * PAGE + 1);
        assert_eq!(tasks.iter().count(), 2 * PAGE - 1);
        assert!(tasks.iter().all(|(no, task)| task.node == no));
        assert!(!tasks.has(3) && !tasks.has(PAGE as u32) && !tasks.has(4 * PAGE as u32));
        assert_eq!(tasks[2 * PAGE].node, 2 * PAGE as u32);
    }
}
