//! `schedule` and `triggers`.

use kobza_model::Json;
use kobza_schedule::Schedule;
use serde_json::json;

use super::{Compiler, templates};
use crate::document::Located;
use crate::shape::{Finding, below};

const CLOCKS: [&str; 5] = ["cron", "interval", "every", "at", "rrule"];

impl Compiler<'_> {
    /// Every trigger as written, in one list; null when there is none.
    pub(super) fn triggers(&mut self) -> Json {
        let mut all = Vec::new();
        if let Some(schedule) = self.root.get("schedule") {
            let json = match schedule.text() {
                Some(text) => json!({"cron": text}),
                None => schedule.json(),
            };
            self.trigger(schedule, &json, "schedule");
            all.push(json);
        }
        if let Some(triggers) = self.root.get("triggers") {
            for (place, trigger) in triggers.items().iter().enumerate() {
                let json = trigger.json();
                self.trigger(trigger, &json, &format!("triggers[{place}]"));
                all.push(json);
            }
        }
        if all.is_empty() { Json::Null } else { Json::Array(all) }
    }

    fn trigger(&mut self, value: &Located, json: &Json, path: &str) {
        if CLOCKS.iter().any(|clock| json.get(clock).is_some())
            && let Err(error) = Schedule::parse(json)
        {
            let root = error.field.split(['.', '[']).next().unwrap_or("");
            let (at, field) = match value.get(root) {
                Some(at) => (at, below(path, &error.field)),
                None if value.text().is_some() => (value, path.to_owned()),
                None => (value, path.to_owned()),
            };
            let finding = Finding::at(at, &field, error.message).maybe_hint(error.hint);
            self.error(finding);
        }
        let scope = templates::Scope::event();
        let mut refs = templates::Collected::default();
        if let Some(filter) = value.get("filter") {
            self.expression(filter, &below(path, "filter"), &scope, &mut refs);
        }
        if let Some(params) = value.get("params") {
            let path = below(path, "params");
            self.json_template(params, &path, &scope, &mut refs);
            for (key, _) in params.fields() {
                if !self.params.contains(&key.text) {
                    let hint = crate::diagnostic::suggest(
                        &key.text,
                        self.params.iter().map(String::as_str),
                    );
                    let finding = Finding::at_key(
                        key,
                        &below(&path, &key.text),
                        "the workflow has no such parameter",
                    )
                    .maybe_hint(hint.or_else(|| Some("declare it under `params`".to_owned())));
                    self.error(finding);
                }
            }
        }
    }
}
