//! Which pending tasks wait, directly or not, for a disabled one. Kept up to date along the edges
//! that change; nothing is looked at while no task is disabled.

use std::collections::BTreeSet;

use super::index::Index;
use super::state::{NodeNo, Status};

impl Index {
    fn blocks(&self, node: NodeNo) -> bool {
        self.get(node).is_some_and(|task| match task.status {
            Status::Disabled => true,
            Status::Pending => task.blocked,
            _ => false,
        })
    }

    fn has_blocking_dep(&self, node: NodeNo) -> bool {
        self.blockers > 0
            && self.get(node).is_some_and(|task| {
                task.status == Status::Pending && task.deps.iter().any(|d| self.blocks(*d))
            })
    }

    /// After a change of a task's dependencies.
    pub(super) fn recheck_blocked(&mut self, node: NodeNo) {
        if self.task(node).blocked {
            self.clear_cone(node, true);
        } else if self.has_blocking_dep(node) {
            self.task_mut(node).blocked = true;
        }
    }

    /// After a change of a task's status (or of `blocked`): tells those above.
    pub(super) fn spread_blocked(&mut self, node: NodeNo) {
        let task = self.task(node);
        if task.status == Status::Pending && !task.blocked && self.has_blocking_dep(node) {
            self.task_mut(node).blocked = true;
            self.place(node);
        }
        let task = self.task_mut(node);
        if task.status != Status::Pending {
            task.blocked = false;
        }
        let (was, is) = (self.task(node).indexed.blocks, self.blocks(node));
        if was == is {
            return;
        }
        self.set_blocks(node, is);
        if is {
            self.block_up(vec![node]);
        } else {
            self.clear_cone(node, false);
        }
    }

    fn set_blocks(&mut self, node: NodeNo, blocks: bool) {
        let was = std::mem::replace(&mut self.task_mut(node).indexed.blocks, blocks);
        match (was, blocks) {
            (false, true) => self.blockers += 1,
            (true, false) => self.blockers -= 1,
            _ => {}
        }
    }

    /// Everything pending above `stack` is blocked.
    fn block_up(&mut self, mut stack: Vec<NodeNo>) {
        while let Some(node) = stack.pop() {
            let above: Vec<NodeNo> = self.nodes[node as usize].dependents.iter().copied().collect();
            for node in above {
                let task = self.task_mut(node);
                if task.status == Status::Pending && !task.blocked {
                    task.blocked = true;
                    self.place(node);
                    self.set_blocks(node, true);
                    stack.push(node);
                }
            }
        }
    }

    /// `node` blocks no more (or, with `itself`, may not): clears all that is blocked above it,
    /// then blocks again what another disabled task reaches. Right for cycles too.
    fn clear_cone(&mut self, node: NodeNo, itself: bool) {
        let mut cone = BTreeSet::new();
        let mut stack = vec![node];
        if itself {
            cone.insert(node);
            self.task_mut(node).blocked = false;
            self.set_blocks(node, false);
        }
        while let Some(node) = stack.pop() {
            let above: Vec<NodeNo> = self.nodes[node as usize].dependents.iter().copied().collect();
            for node in above {
                let task = self.task_mut(node);
                if task.status == Status::Pending && task.blocked && cone.insert(node) {
                    task.blocked = false;
                    self.set_blocks(node, false);
                    stack.push(node);
                }
            }
        }
        let mut again = Vec::new();
        for node in &cone {
            if !self.task(*node).blocked && self.has_blocking_dep(*node) {
                self.task_mut(*node).blocked = true;
                self.set_blocks(*node, true);
                again.push(*node);
            }
        }
        self.block_up(again);
        for node in cone {
            self.place(node);
        }
    }
}
