//! Settings of a scheduler, under the names that luigid gives them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The keys of luigid's `[scheduler]` section that decide something, and `[resources]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LuigiConfig {
    /// Seconds after which a failed task is pending again; negative: never.
    pub retry_delay: f64,
    /// Seconds that a task stays after its last stakeholder has gone.
    pub remove_delay: f64,
    /// Seconds of silence after which a worker counts as gone.
    pub worker_disconnect_delay: f64,
    /// Seconds in which failures are counted.
    pub disable_window: f64,
    /// Failures in the window that disable a task.
    pub retry_count: f64,
    /// Seconds after the first failure when any further one disables a task.
    pub disable_hard_timeout: f64,
    /// Seconds that a disabled task stays so.
    pub disable_persist: f64,
    pub max_shown_tasks: u64,
    pub max_graph_nodes: u64,
    pub record_task_history: bool,
    pub prune_on_get_work: bool,
    pub pause_enabled: bool,
    pub send_messages: bool,
    /// Seconds after a task was done in which a claim that it is pending is ignored.
    pub stable_done_cooldown_secs: f64,
    /// Capacity by resource; one that is not named has the capacity 1.
    pub resources: BTreeMap<String, f64>,
}

impl Default for LuigiConfig {
    fn default() -> Self {
        Self {
            retry_delay: 900.0,
            remove_delay: 600.0,
            worker_disconnect_delay: 60.0,
            disable_window: 3600.0,
            retry_count: 999_999_999.0,
            disable_hard_timeout: 999_999_999.0,
            disable_persist: 86_400.0,
            max_shown_tasks: 100_000,
            max_graph_nodes: 100_000,
            record_task_history: false,
            prune_on_get_work: false,
            pause_enabled: true,
            send_messages: true,
            stable_done_cooldown_secs: 10.0,
            resources: BTreeMap::new(),
        }
    }
}

/// Why a configuration was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("line {line}: expected `[section]` or `key = value`")]
    Line { line: usize },
    #[error("{key}: {value:?} is not {expected}")]
    Value { key: String, value: String, expected: &'static str },
    #[error("not TOML: {0}")]
    Toml(String),
}

impl LuigiConfig {
    /// Reads the text of a `luigi.cfg` (INI). Sections other than `[scheduler]` and `[resources]`
    /// belong to the workers and are skipped; so are unknown keys.
    pub fn from_cfg(text: &str) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let mut section = String::new();
        for (number, line) in text.lines().enumerate() {
            let indented = line.starts_with([' ', '\t']);
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) || indented {
                continue;
            }
            if let Some(rest) = line.strip_prefix('[') {
                let name = rest.strip_suffix(']');
                section = name.ok_or(ConfigError::Line { line: number + 1 })?.trim().to_owned();
                continue;
            }
            let wanted = matches!(section.as_str(), "scheduler" | "resources");
            let Some((key, value)) = line.split_once(['=', ':']) else {
                if wanted {
                    return Err(ConfigError::Line { line: number + 1 });
                }
                continue;
            };
            config.set(&section, key.trim(), value.trim())?;
        }
        Ok(config)
    }

    /// Reads the text of a `luigi.toml`.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let table: toml::Table = text.parse().map_err(|e| ConfigError::Toml(format!("{e}")))?;
        let mut config = Self::default();
        for section in ["scheduler", "resources"] {
            let Some(toml::Value::Table(keys)) = table.get(section) else { continue };
            for (key, value) in keys {
                let text = match value {
                    toml::Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                config.set(section, key, &text)?;
            }
        }
        Ok(config)
    }

    /// Reads a JSON object of scheduler keys; `resources` apart.
    pub fn from_json(
        config: &serde_json::Value,
        resources: &serde_json::Value,
    ) -> Result<Self, ConfigError> {
        let mut out = Self::default();
        for (section, value) in [("scheduler", config), ("resources", resources)] {
            let Some(object) = value.as_object() else { continue };
            for (key, value) in object {
                let text = match value {
                    serde_json::Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                out.set(section, key, &text)?;
            }
        }
        Ok(out)
    }

    fn set(&mut self, section: &str, key: &str, value: &str) -> Result<(), ConfigError> {
        let bad = |expected| ConfigError::Value {
            key: key.chars().take(80).collect(),
            value: value.chars().take(80).collect(),
            expected,
        };
        let number = || value.parse::<f64>().ok().filter(|n| n.is_finite());
        if section == "resources" {
            let amount = number().filter(|n| *n >= 0.0).ok_or_else(|| bad("an amount"))?;
            self.resources.insert(key.to_owned(), amount);
            return Ok(());
        }
        if section != "scheduler" {
            return Ok(());
        }
        let flag = || match value.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err(bad("true or false")),
        };
        let seconds = || number().ok_or_else(|| bad("a number"));
        let count = || value.parse::<u64>().map_err(|_| bad("a whole number"));
        match key.replace('-', "_").as_str() {
            "retry_delay" => self.retry_delay = seconds()?,
            "remove_delay" => self.remove_delay = seconds()?,
            "worker_disconnect_delay" => self.worker_disconnect_delay = seconds()?,
            "disable_window" | "disable_window_seconds" => self.disable_window = seconds()?,
            "retry_count" | "disable_num_failures" => self.retry_count = seconds()?,
            "disable_hard_timeout" => self.disable_hard_timeout = seconds()?,
            "disable_persist" | "disable_persist_seconds" => self.disable_persist = seconds()?,
            "max_shown_tasks" => self.max_shown_tasks = count()?,
            "max_graph_nodes" => self.max_graph_nodes = count()?,
            "record_task_history" => self.record_task_history = flag()?,
            "prune_on_get_work" => self.prune_on_get_work = flag()?,
            "pause_enabled" => self.pause_enabled = flag()?,
            "send_messages" => self.send_messages = flag()?,
            "stable_done_cooldown_secs" => self.stable_done_cooldown_secs = seconds()?,
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_files() {
        let cfg = "[core]\nlog\n[scheduler]\nretry-delay = 5\nrecord_task_history=True\n\n[resources]\ndb = 3\n";
        let toml =
            "[scheduler]\nretry_delay = 5\nrecord_task_history = true\n[resources]\ndb = 3\n";
        let read = LuigiConfig::from_cfg(cfg).unwrap();
        assert_eq!(read, LuigiConfig::from_toml(toml).unwrap());
        assert_eq!((read.retry_delay, read.record_task_history), (5.0, true));
        assert_eq!(read.resources["db"], 3.0);
        assert!(LuigiConfig::from_cfg("[scheduler]\nretry_delay = soon\n").is_err());
    }
}
