//! Questions of Airflow's tasks, as Kobza's own API shows and answers them.

use kobza_api::{Approval, Decision, NotTaken};
use kobza_dialect_airflow::people::{self, Person};
use kobza_model::{Json, TaskId, TaskNo, TaskState};
use kobza_runtime::{Facts, Submission};
use kobza_store::kinds;

fn question(facts: &dyn Facts, task: TaskId) -> Option<std::sync::Arc<Json>> {
    facts.lookup(kinds::AIRFLOW_OBJECT, &people::key(task))
}

pub(crate) fn approval(facts: &dyn Facts, task: TaskNo) -> Option<Approval> {
    let asked = question(facts, TaskId { run: facts.run().run, task })?;
    Some(Approval {
        prompt: Some(people::prompt(&asked)),
        fields: people::fields(&asked),
        approvers: people::respondents(&asked),
    })
}

/// An approval chooses the option that lets things go on, a refusal the one that does not; the task
/// itself goes on either way.
pub(crate) fn decide(
    facts: &dyn Facts,
    task: TaskNo,
    decision: Decision,
) -> Result<Submission, NotTaken> {
    let id = TaskId { run: facts.run().run, task };
    let refused = |not: people::NotTaken| NotTaken { status: not.status, message: not.words };
    let row = facts.task(task).filter(|row| row.state == TaskState::Suspended);
    let (Some(row), Some(asked)) = (row, question(facts, id)) else {
        let message = "the task waits for nobody".to_owned();
        return Err(NotTaken { status: 409, message });
    };
    let (chosen, params) =
        people::decision(&asked, decision.approved, &decision.values).map_err(refused)?;
    let person = Person { name: &decision.by, anybody: decision.anybody };
    people::check(&asked, person, &chosen).map_err(refused)?;
    let answered =
        people::answered((*asked).clone(), Some(&decision.by), chosen, params, facts.now());
    let (command, write) = people::go_on(id, &row.carry, &facts.run().namespace, answered, false);
    Ok(Submission { commands: vec![command], writes: vec![write] })
}
