//! What a task's environment must hold.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use crate::environment::BuildError;
use crate::task::Listed;

/// Longest file read for requirements.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Resolved requirements: texts, not names of files that may change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Requirements {
    /// Base interpreter: a program, or a version such as `3.12` or `>=3.11`.
    pub python: Option<String>,
    pub source: Source,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Lines for `pip install -r`.
    Lines(Vec<String>),
    /// A requirements file or `pyproject.toml`, with its content.
    File { path: PathBuf, content: String },
}

impl Requirements {
    /// Reads what a task lists; without that, what is written inside its file.
    pub fn of(
        listed: Option<&Listed>,
        file: Option<&Path>,
        interpreter: Option<&str>,
    ) -> Result<Option<Self>, BuildError> {
        let python = interpreter.map(str::to_owned);
        match listed {
            Some(Listed::Packages(lines)) => {
                if let Some(bad) = lines.iter().find(|l| l.contains(['\n', '\r', '\0'])) {
                    return Err(BuildError::Requirement(bad.chars().take(80).collect()));
                }
                Ok(Some(Self { python, source: Source::Lines(lines.clone()) }))
            }
            Some(Listed::File(name)) => {
                let path = PathBuf::from(name);
                let content = read(&path)?;
                Ok(Some(Self { python, source: Source::File { path, content } }))
            }
            None if interpreter.is_none() => match file {
                Some(file) if file.is_file() => inline_requirements(&read(file)?),
                _ => Ok(None),
            },
            None => Ok(None),
        }
    }

    /// Whether `of` must look into the task's file.
    fn are_inside(listed: Option<&Listed>, interpreter: Option<&str>) -> bool {
        listed.is_none() && interpreter.is_none()
    }

    /// A name for the environment: equal for equal content.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        let mut part = |text: &str| {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text.as_bytes());
        };
        part(self.python.as_deref().unwrap_or(""));
        match &self.source {
            Source::Lines(lines) => {
                part("lines");
                lines.iter().for_each(|line| part(line));
            }
            Source::File { path, content } => {
                // Relative paths inside mean something only where the file lies.
                part("file");
                part(&path.to_string_lossy());
                part(content);
            }
        }
        hash.finalize().iter().take(12).fold(String::new(), |mut text, byte| {
            // Writing to a text cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// What was found inside files of code, which most tasks share.
#[derive(Debug, Default)]
pub(crate) struct Inside {
    files: HashMap<PathBuf, (SystemTime, u64, Option<Requirements>)>,
}

/// Files remembered; with more of them, all are forgotten.
const FILES_MAX: usize = 1024;

impl Inside {
    /// As [`Requirements::of`]; a file that has not changed is not read again.
    pub(crate) fn of(
        &mut self,
        listed: Option<&Listed>,
        file: Option<&Path>,
        interpreter: Option<&str>,
    ) -> Result<Option<Requirements>, BuildError> {
        let Some(path) = file.filter(|_| Requirements::are_inside(listed, interpreter)) else {
            return Requirements::of(listed, file, interpreter);
        };
        let stamp = fs::metadata(path).ok().and_then(|at| Some((at.modified().ok()?, at.len())));
        if let (Some((modified, bytes)), Some(known)) = (stamp, self.files.get(path))
            && (known.0, known.1) == (modified, bytes)
        {
            return Ok(known.2.clone());
        }
        let found = Requirements::of(listed, file, interpreter)?;
        if let Some((modified, bytes)) = stamp {
            if self.files.len() >= FILES_MAX {
                self.files.clear();
            }
            self.files.insert(path.to_owned(), (modified, bytes, found.clone()));
        }
        Ok(found)
    }
}

fn read(path: &Path) -> Result<String, BuildError> {
    let failed = |e: std::io::Error| BuildError::File { path: path.into(), reason: e.to_string() };
    let bytes = fs::metadata(path).map_err(failed)?.len();
    if bytes > FILE_BYTES_MAX {
        let reason = format!("{bytes} bytes are more than the limit of {FILE_BYTES_MAX}");
        return Err(BuildError::File { path: path.into(), reason });
    }
    fs::read_to_string(path).map_err(failed)
}

/// Inline script metadata (PEP 723): a comment block `# /// script` ... `# ///` of TOML with
/// `dependencies` and `requires-python`.
pub fn inline_requirements(source: &str) -> Result<Option<Requirements>, BuildError> {
    let mut blocks = Vec::new();
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        if line.trim_end() != "# /// script" {
            continue;
        }
        let mut block = Vec::new();
        let mut closed = None;
        for line in lines.by_ref() {
            let content = match line {
                "#" => "",
                _ => match line.strip_prefix("# ") {
                    Some(content) => content,
                    None => break,
                },
            };
            if content.trim_end() == "///" {
                // The last such line before the comment ends closes the block.
                closed = Some(block.len());
            }
            block.push(content);
        }
        if let Some(end) = closed {
            block.truncate(end);
            blocks.push(block.join("\n"));
        }
    }
    let text = match blocks.as_slice() {
        [] => return Ok(None),
        [only] => only,
        _ => return Err(BuildError::Inline("there are two `script` blocks".into())),
    };
    let table: toml::Table =
        text.parse().map_err(|e: toml::de::Error| BuildError::Inline(e.to_string()))?;
    let text_of = |value: &toml::Value, what: &str| {
        value
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| BuildError::Inline(format!("{what} is no text")))
    };
    let lines = match table.get("dependencies") {
        None => Vec::new(),
        Some(toml::Value::Array(items)) => {
            items.iter().map(|item| text_of(item, "a dependency")).collect::<Result<_, _>>()?
        }
        Some(_) => return Err(BuildError::Inline("`dependencies` is no list".into())),
    };
    let python = match table.get("requires-python") {
        Some(value) => Some(text_of(value, "`requires-python`")?),
        None => None,
    };
    if lines.is_empty() && python.is_none() {
        return Ok(None);
    }
    Ok(Some(Requirements { python, source: Source::Lines(lines) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inline_metadata() {
        let script = "#!/usr/bin/env python\n# /// script\n# requires-python = \">=3.11\"\n\
            # dependencies = [\n#   \"six<2\",\n#\n#   \"idna\",\n# ]\n# ///\nimport six\n";
        let found = inline_requirements(script).unwrap().unwrap();
        assert_eq!(found.python.as_deref(), Some(">=3.11"));
        assert_eq!(found.source, Source::Lines(vec!["six<2".into(), "idna".into()]));
        assert_eq!(inline_requirements("import six\n").unwrap(), None);
        assert_eq!(inline_requirements("# /// script\nimport six\n").unwrap(), None);
        for bad in [
            "# /// script\n# dependencies = 3\n# ///\n",
            "# /// script\n# dependencies = [3]\n# ///\n",
            "# /// script\n# dependencies = [\n# ///\n",
            "# /// script\n# a = 1\n# ///\n\n# /// script\n# a = 1\n# ///\n",
        ] {
            assert!(inline_requirements(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hashes_follow_the_content() {
        let of = |lines: &[&str], python: Option<&str>| {
            Requirements {
                python: python.map(Into::into),
                source: Source::Lines(lines.iter().map(|&l| l.into()).collect()),
            }
            .hash()
        };
        assert_eq!(of(&["a"], None), of(&["a"], None));
        let all =
            [of(&["a", "b"], None), of(&["ab"], None), of(&["a"], Some("3.12")), of(&["a"], None)];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
