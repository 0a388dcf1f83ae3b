//! Values of settings, from texts and from the file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::table::Form;

/// A checked value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Path(PathBuf),
    Address(SocketAddr),
    Number(u32),
    /// With the text that was given.
    Duration(Duration, String),
    List(Vec<String>),
    Url(String),
}

/// What is wrong with a value.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) hint: String,
}

fn wrong<T>(message: impl Into<String>, hint: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { message: message.into(), hint: hint.into() })
}

impl Value {
    pub(super) fn from_text(form: Form, text: &str) -> Result<Self, Wrong> {
        match form {
            Form::Text => Ok(Self::Text(text.to_owned())),
            Form::Path if text.is_empty() => wrong("a path is wanted", "it is empty"),
            Form::Path => Ok(Self::Path(PathBuf::from(text))),
            Form::Address => text.parse().map(Self::Address).or_else(|_| {
                wrong(
                    format!("{text:?} is not an address"),
                    "write an IP address and a port, such as 127.0.0.1:8470 or [::1]:8470",
                )
            }),
            Form::Number(least, most) => match text.parse::<i64>() {
                Ok(number) => Self::from_number(number, least, most),
                Err(_) => wrong("a whole number is wanted", format!("{text:?} is none")),
            },
            Form::Duration => match crate::upkeep::duration(text) {
                Ok(duration) => Ok(Self::Duration(duration, text.to_owned())),
                Err(message) => wrong(message, "units are d, h, m and s"),
            },
            Form::Choice(words) if words.contains(&text) => Ok(Self::Text(text.to_owned())),
            Form::Choice(words) => wrong(
                format!("{text:?} is none of {}", words.join(", ")),
                format!("write {}", words.join(" or ")),
            ),
            Form::List => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                Ok(Self::List(parts.map(str::to_owned).collect()))
            }
            Form::Url => Ok(Self::Url(text.to_owned())),
        }
    }

    pub(super) fn from_number(number: i64, least: u32, most: u32) -> Result<Self, Wrong> {
        match u32::try_from(number) {
            Ok(good) if (least..=most).contains(&good) => Ok(Self::Number(good)),
            _ => wrong(
                format!("{number} is not between {least} and {most}"),
                format!("write a whole number from {least} to {most}"),
            ),
        }
    }
}

/// Without what may be secret: the password, and everything behind the `?`.
fn without_secrets(url: &str) -> String {
    let url = url.split('?').next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    match rest.rsplit_once('@') {
        Some((credentials, place)) => {
            let user = credentials.split(':').next().unwrap_or_default();
            let password = if credentials.contains(':') { ":***" } else { "" };
            format!("{scheme}://{user}{password}@{place}")
        }
        None => url.to_owned(),
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) | Self::Duration(_, text) => f.write_str(text),
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Address(address) => write!(f, "{address}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::List(all) => f.write_str(&all.join(",")),
            Self::Url(url) => f.write_str(&without_secrets(url)),
        }
    }
}
