//! The tables of the settings' file that say what goes out.

use serde::Deserialize;

/// What goes out, and where.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub(crate) notify: Vec<Rule>,
    pub(crate) traces: Option<Traces>,
    pub(crate) lineage: Option<Lineage>,
}

/// The tables cannot be used; the message says where and why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum On {
    Failure,
    Success,
    Cancelled,
    Retry,
    /// A task failed for good, or a driver could not even list it.
    TaskFailure,
    CheckFailed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Form {
    #[default]
    Webhook,
    Slack,
    Email,
}

/// A rule for notifications.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) on: Vec<On>,
    /// None: any.
    pub(crate) namespace: Option<String>,
    pub(crate) workflow: Option<String>,
    /// A connection of the namespace `default`: `url`, for webhooks a `secret`, and for e-mails
    /// `from`, `to`, `user` and `password`.
    pub(crate) connection: String,
    /// Who gets the e-mails; as the connection says when empty.
    #[serde(default)]
    pub(crate) to: Vec<String>,
    /// A template of `event`, for e-mails.
    #[serde(default = "default_text")]
    pub(crate) subject: String,
    #[serde(default)]
    pub(crate) form: Form,
    /// A template of `event`.
    #[serde(default = "default_text")]
    pub(crate) text: String,
}

fn default_text() -> String {
    "{{ event.what }}: {{ event.workflow }} run {{ event.run }}".to_owned()
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Traces {
    /// Where OTLP over HTTP is taken, such as `http://127.0.0.1:4318/v1/traces`.
    pub(crate) url: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lineage {
    /// Where OpenLineage events are taken, such as `http://127.0.0.1:5000/api/v1/lineage`.
    pub(crate) url: String,
}

impl Config {
    /// What reading alone does not find: names that clash, templates and URLs that are none.
    ///
    /// # Errors
    /// With what is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut names = std::collections::BTreeSet::new();
        for rule in &self.notify {
            let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            if rule.name.is_empty() || !rule.name.chars().all(plain) || !names.insert(&rule.name) {
                return Err(ConfigError(format!(
                    "notify: {:?} is not a usable name: letters, digits, `_`, `-` and `.`, each name once",
                    rule.name
                )));
            }
            for (field, template) in [("text", &rule.text), ("subject", &rule.subject)] {
                kobza_expr::native::check(template, kobza_expr::native::Mode::Text)
                    .map_err(|e| ConfigError(format!("notify {}: {field}: {e}", rule.name)))?;
            }
            for address in &rule.to {
                crate::email::mailbox(address).map_err(|_| {
                    ConfigError(format!("notify {}: to: no e-mail address", rule.name))
                })?;
            }
            if rule.form != Form::Email && !rule.to.is_empty() {
                let message = format!("notify {}: only e-mails have `to`", rule.name);
                return Err(ConfigError(message));
            }
        }
        let urls = [self.traces.as_ref().map(|t| &t.url), self.lineage.as_ref().map(|l| &l.url)];
        for url in urls.into_iter().flatten() {
            if !url.starts_with("http://") && !url.starts_with("https://") {
                return Err(ConfigError("a url begins with http:// or https://".to_owned()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Config;

    fn parse(text: &str) -> Result<(), String> {
        let config: Config = toml::from_str(text).map_err(|e| e.to_string())?;
        config.check().map_err(|e| e.to_string())
    }

    #[test]
    fn bad_files_are_refused() {
        for (text, word) in [
            ("[traces]\nurl = 'ftp://x'", "http"),
            ("[[notify]]\nname='a b'\non=['failure']\nconnection='c'", "name"),
            ("[[notify]]\nname='a'\non=['sometimes']\nconnection='c'", "sometimes"),
            ("[[notify]]\nname='a'\non=[]\nconnection='c'\ntext='{{ '", "text"),
            ("nonsense = 1", "nonsense"),
            ("[[notify]]\nname='a'\non=[]\nconnection='c'\nform='email'\nto=['x y']", "address"),
            ("[[notify]]\nname='a'\non=[]\nconnection='c'\nto=['x@example.org']", "only"),
            ("[[notify]]\nname='a'\non=[]\nconnection='c'\nsubject='{{ '", "subject"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        assert!(parse("").is_ok());
    }
}
