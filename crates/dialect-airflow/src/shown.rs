//! A task's rendered templates, for people to read.

use kobza_model::{Json, TaskNo};
use kobza_runtime::Facts;

/// Fields that say by themselves what a task runs, with the language that they are in.
const BODIES: [(&str, &str); 2] = [("bash_command", "bash"), ("sql", "sql")];

/// The fields as the task runner rendered them; none while it has not.
#[must_use]
pub fn rendered(facts: &dyn Facts, task: TaskNo) -> Option<(&'static str, String, Json)> {
    let fields = facts.output(task, "$rendered")?;
    let named = fields.as_object().filter(|fields| !fields.is_empty())?;
    let body = BODIES.iter().find_map(|(name, language)| {
        let text = named.get(*name)?.as_str()?;
        Some((*language, text.to_owned()))
    });
    let (language, text) = body.unwrap_or_else(|| {
        // Each field with its value.
        let lines = named.iter().map(|(name, value)| match value {
            Json::String(text) if text.contains('\n') => format!("{name}:\n{text}\n"),
            Json::String(text) => format!("{name}: {text}\n"),
            other => format!("{name}: {other}\n"),
        });
        ("text", lines.collect())
    });
    Some((language, text, (*fields).clone()))
}
