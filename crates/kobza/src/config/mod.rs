//! Settings: a file stands below the environment, and that below flags.

mod file;
mod flags;
mod table;
mod value;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::failure::Failure;

pub(crate) use flags::ServerFlags;
pub(crate) use table::{SETTINGS, Setting};
use value::Value;

/// The files of which the first that is there is read when none is named.
const FILES: [&str; 2] = ["kobza.toml", "/etc/kobza/kobza.toml"];
/// Names the file.
const FILE_VARIABLE: &str = "KOBZA_CONFIG";

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Default,
    /// The file and the line.
    File(PathBuf, u32),
    Environment(&'static str),
    Flag(&'static str),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Environment(variable) => f.write_str(variable),
            Self::Flag(flag) => write!(f, "--{flag}"),
        }
    }
}

/// Values as they were typed, by the setting's key.
pub(crate) type Given = Vec<(&'static str, String)>;

/// The settings in force.
pub(crate) struct Settings {
    values: BTreeMap<&'static str, (Value, Source)>,
    /// The file that was read.
    pub(crate) file: Option<PathBuf>,
    /// Rules of what goes out.
    pub(crate) outbound: kobza_outbound::Config,
}

impl Settings {
    /// Reads the file (the named one, that of the environment, or the first of the usual ones) and
    /// the environment; `flags` stand above both.
    pub(crate) fn load(file: Option<&Path>, flags: &Given) -> Result<Self, Failure> {
        let from_environment = || std::env::var_os(FILE_VARIABLE).filter(|v| !v.is_empty());
        let named = file.map(Path::to_owned).or_else(|| from_environment().map(PathBuf::from));
        let file =
            named.or_else(|| FILES.into_iter().map(PathBuf::from).find(|path| path.is_file()));
        let environment = |name: &str| std::env::var(name).ok();
        Self::resolve(file.as_deref(), environment, flags)
    }

    fn resolve(
        file: Option<&Path>,
        environment: impl Fn(&str) -> Option<String>,
        flags: &Given,
    ) -> Result<Self, Failure> {
        let read = file.map(file::read).transpose()?;
        let (mut from_file, outbound) =
            read.map_or_else(Default::default, |r| (r.values, r.outbound));
        let mut values = BTreeMap::new();
        for setting in SETTINGS {
            let typed = |text: &str, place: &dyn std::fmt::Display| {
                Value::from_text(setting.form, text)
                    .map_err(|e| Failure::hint(format!("{place}: {}", e.message), e.hint))
            };
            let flag = flags.iter().find(|(key, _)| *key == setting.key);
            let variable = environment(setting.variable).filter(|text| !text.is_empty());
            let found = if let Some((_, text)) = flag {
                let source = Source::Flag(setting.flag);
                Some((typed(text, &source)?, source))
            } else if let Some(text) = variable {
                let source = Source::Environment(setting.variable);
                Some((typed(&text, &setting.variable)?, source))
            } else if let Some(found) = from_file.remove(setting.key) {
                Some(found)
            } else {
                let default = setting.default.map(|text| typed(text, &setting.key)).transpose()?;
                default.map(|value| (value, Source::Default))
            };
            if let Some(found) = found {
                values.insert(setting.key, found);
            }
        }
        Ok(Self { values, file: file.map(Path::to_owned), outbound })
    }

    fn value(&self, key: &str) -> Option<&Value> {
        debug_assert!(SETTINGS.iter().any(|s| s.key == key), "{key} is in no row of the table");
        self.values.get(key).map(|(value, _)| value)
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match self.value(key) {
            Some(Value::Text(text) | Value::Url(text)) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn path(&self, key: &str) -> Option<&Path> {
        match self.value(key) {
            Some(Value::Path(path)) => Some(path),
            _ => None,
        }
    }

    pub(crate) fn list(&self, key: &str) -> &[String] {
        match self.value(key) {
            Some(Value::List(all)) => all,
            _ => &[],
        }
    }

    pub(crate) fn duration(&self, key: &str) -> Option<Duration> {
        match self.value(key) {
            Some(Value::Duration(duration, _)) => Some(*duration),
            _ => None,
        }
    }

    fn number(&self, key: &str) -> Option<u32> {
        match self.value(key) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// The data folder.
    pub(crate) fn data(&self) -> &Path {
        self.path("data").unwrap_or(Path::new(".kobza"))
    }

    pub(crate) fn address(&self, key: &str) -> Option<SocketAddr> {
        match self.value(key) {
            Some(Value::Address(address)) => Some(*address),
            _ => None,
        }
    }

    pub(crate) fn listen(&self) -> SocketAddr {
        self.address("listen").unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8470)))
    }

    pub(crate) fn slots(&self) -> u32 {
        self.number("slots").unwrap_or(64)
    }

    /// Each setting with its value as it may be shown, and where that comes from.
    pub(crate) fn shown(&self) -> Vec<(&'static Setting, Option<String>, Source)> {
        let row = |setting: &'static Setting| match self.values.get(setting.key) {
            Some((value, source)) => (setting, Some(value.to_string()), source.clone()),
            None => (setting, None, Source::Default),
        };
        SETTINGS.iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(failure: Failure) -> String {
        match failure {
            Failure::Message(message, hint) => format!("{message}\n{}", hint.unwrap_or_default()),
            other => format!("{other:?}"),
        }
    }

    fn settings(
        text: &str,
        environment: &[(&str, &str)],
        flags: &Given,
    ) -> Result<Settings, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kobza.toml");
        std::fs::write(&file, text).unwrap();
        let look = |name: &str| {
            environment.iter().find(|(own, _)| *own == name).map(|(_, v)| (*v).to_owned())
        };
        Settings::resolve(Some(&file), look, flags)
            .map_err(|e| said(e).replace(&format!("{}/", folder.path().display()), ""))
    }

    #[test]
    fn the_file_stands_below_the_environment_and_that_below_flags() {
        let text = "slots = 3\nlisten = '127.0.0.1:1'\nkeep = '2d'\n[log]\nformat = 'json'\n";
        let environment =
            [("KOBZA_SLOTS", "4"), ("KOBZA_LISTEN", "127.0.0.1:2"), ("KOBZA_KEEP", "")];
        let flags = vec![("slots", "5".to_owned())];
        let settings = settings(text, &environment, &flags).unwrap();
        assert_eq!(settings.slots(), 5);
        assert_eq!(settings.listen().port(), 2);
        assert_eq!(settings.duration("keep"), Some(Duration::from_secs(2 * 86_400)));
        assert_eq!(settings.text("log.format"), Some("json"));
        assert_eq!(settings.data(), Path::new(".kobza"));
        let source = |key: &str| {
            let all = settings.shown();
            all.iter().find(|(s, ..)| s.key == key).unwrap().2.to_string()
        };
        assert_eq!(source("slots"), "--slots");
        assert_eq!(source("listen"), "KOBZA_LISTEN");
        assert!(source("keep").ends_with("kobza.toml:3"), "{}", source("keep"));
        assert!(source("log.format").ends_with("kobza.toml:5"), "{}", source("log.format"));
        assert_eq!(source("data"), "default");
    }

    #[test]
    fn paths_of_the_file_count_from_it() {
        let settings = settings("workflows = 'flows'\ndata = '/var/x'", &[], &Vec::new()).unwrap();
        let workflows = settings.path("workflows").unwrap();
        assert!(workflows.is_absolute() && workflows.ends_with("flows"), "{workflows:?}");
        assert_eq!(settings.data(), Path::new("/var/x"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, says) in [
            ("x = ", "kobza.toml:1:"),
            ("\nslots = 'many'", "kobza.toml:2:9: slots: a whole number is wanted"),
            ("slots = 0", "kobza.toml:1:9: slots: 0 is not between 1 and 100000"),
            ("slotz = 1", "kobza.toml:1:1: slotz: there is no such setting\ndid you mean slots?"),
            ("[log]\nform = 'x'", "kobza.toml:2:1: log.form: there is no such setting"),
            ("log = 1", "kobza.toml:1:7: log: a table is wanted"),
            ("[log]\nformat = 'xml'", "kobza.toml:2:10: log.format: \"xml\" is none of text, json"),
            ("listen = 'nowhere'", "kobza.toml:1:10: listen: \"nowhere\" is not an address"),
            ("keep = '3w'", "kobza.toml:1:8: keep: \"3w\" is not a duration"),
            ("hosts = 'x'", "kobza.toml:1:9: hosts: a list of texts is wanted"),
            ("hosts = [1]", "kobza.toml:1:10: hosts: a text is wanted"),
            ("[traces]\nurl = 1", "kobza.toml:2:7: invalid type"),
            ("[[notify]]\nname = 'a'\non = ['now']\nconnection = 'c'", "kobza.toml:3:7: "),
            ("[lineage]\nurl = 'ftp://x'", "kobza.toml: a url begins with http"),
        ] {
            let error = settings(text, &[], &Vec::new()).err().unwrap();
            assert!(error.starts_with(says), "{text:?}: {error}");
        }
        let error = settings("", &[("KOBZA_SLOTS", "x")], &Vec::new()).err().unwrap();
        assert!(error.starts_with("KOBZA_SLOTS: "), "{error}");
        let error = settings("", &[], &vec![("keep", "soon".to_owned())]).err().unwrap();
        assert!(error.starts_with("--keep: "), "{error}");
    }

    #[test]
    fn a_password_is_not_shown() {
        let text = "store = 'postgres://me:hunter2@host/db?password=hunter2'";
        let settings = settings(text, &[], &Vec::new()).unwrap();
        let shown = format!("{:?}", settings.shown().iter().map(|r| &r.1).collect::<Vec<_>>());
        assert!(
            !shown.contains("hunter2") && shown.contains("postgres://me:***@host/db"),
            "{shown}"
        );
        assert!(settings.text("store").unwrap().contains("hunter2"));
    }

    #[test]
    fn each_setting_is_there_once_and_its_default_is_good() {
        for (at, setting) in SETTINGS.iter().enumerate() {
            for other in &SETTINGS[..at] {
                assert_ne!(setting.key, other.key);
                assert_ne!(setting.variable, other.variable);
                assert_ne!(setting.flag, other.flag);
            }
            if let Some(default) = setting.default {
                assert!(Value::from_text(setting.form, default).is_ok(), "{}", setting.key);
            }
        }
    }

    #[test]
    fn the_documentation_names_every_setting() {
        let page = include_str!("../../../../docs/operations.md");
        for setting in SETTINGS {
            let row = page.lines().find(|line| line.starts_with(&format!("| `{}` |", setting.key)));
            let row = row.unwrap_or_else(|| panic!("no row for {}", setting.key));
            assert!(row.contains(&format!("`{}`", setting.variable)), "{row}");
            assert!(row.contains(&format!("`--{}`", setting.flag)), "{row}");
        }
    }
}
