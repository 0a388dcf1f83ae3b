//! Sending by SMTP.

use std::time::{Duration, SystemTime};

use kobza_model::{Json, Timestamp};
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{SmtpTransport, Transport as _};

use crate::send::Failed;

/// For one command of the exchange.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest subject, in characters.
const MAX_SUBJECT: usize = 200;

/// A notification as an e-mail.
pub(crate) struct Email<'a> {
    /// Stays the same however often it is sent.
    pub(crate) id: &'a str,
    /// When it happened.
    pub(crate) at: Timestamp,
    pub(crate) connection: &'a Json,
    /// Who gets it; as the connection says when empty.
    pub(crate) to: &'a [String],
    pub(crate) subject: &'a str,
    pub(crate) text: &'a str,
}

/// An address such as `ops@example.org` or `Ops <ops@example.org>`.
pub(crate) fn mailbox(text: &str) -> Result<Mailbox, Failed> {
    text.trim().parse().map_err(|_| Failed::Refused("an e-mail address is not usable".to_owned()))
}

/// How the connection between the two is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protection {
    /// TLS from the first byte: `smtps://`.
    Whole,
    /// TLS before anything is said: `smtp://`.
    Upgraded,
    /// `smtp://…?tls=none`.
    Missing,
}

/// Where the mail server is.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    host: String,
    port: u16,
    protection: Protection,
}

fn place(url: &str) -> Result<Place, &'static str> {
    let (scheme, rest) = url.split_once("://").ok_or("its url begins with smtp:// or smtps://")?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = rest.trim_end_matches('/');
    if authority.contains('@') {
        return Err("its url holds a user: give `user` and `password` as fields of their own");
    }
    let protection = match (scheme, query) {
        ("smtps", "") => Protection::Whole,
        ("smtp", "" | "tls=required") => Protection::Upgraded,
        ("smtp", "tls=none") => Protection::Missing,
        ("smtp" | "smtps", _) => return Err("of its url's parameters only `tls=none` is known"),
        _ => return Err("its url begins with smtp:// or smtps://"),
    };
    let usual = if protection == Protection::Whole { 465 } else { 587 };
    let named = authority.rsplit_once(':').filter(|(_, port)| !port.contains(']'));
    let (host, port) = match named {
        Some((host, port)) => (host, port.parse().map_err(|_| "its url's port is no number")?),
        None => (authority, usual),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err("its url names no host");
    }
    Ok(Place { host: host.to_owned(), port, protection })
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Sends it. Errors never show what the server said: it may quote what is secret.
pub(crate) fn send(email: &Email<'_>) -> Result<(), Failed> {
    let message = message(email)?;
    let transport = transport(email.connection)?;
    match transport.send(&message) {
        Ok(_) => Ok(()),
        Err(error) => Err(match error.status() {
            Some(code) if error.is_permanent() => {
                Failed::Refused(format!("the mail server answered {code}"))
            }
            Some(code) => Failed::Later(format!("the mail server answered {code}")),
            None if error.is_timeout() => Failed::Later("no answer in time".to_owned()),
            None if error.is_tls() => {
                Failed::Later("no protected connection to the mail server".to_owned())
            }
            None if error.is_client() => {
                Failed::Refused("the mail server lacks what this connection needs".to_owned())
            }
            None => Failed::Later("the mail server cannot be reached".to_owned()),
        }),
    }
}

fn transport(connection: &Json) -> Result<SmtpTransport, Failed> {
    let field = |name: &str| connection.get(name).and_then(Json::as_str);
    // A connection may be mended while the notification waits.
    let wrong = |what: &str| Failed::Later(format!("the connection is not usable: {what}"));
    let url = field("url").ok_or_else(|| wrong("it has no url"))?;
    let place = place(url).map_err(wrong)?;
    let password = field("password");
    if place.protection == Protection::Missing && password.is_some() && !is_loopback(&place.host) {
        return Err(wrong("a password is not sent without TLS"));
    }
    let mut tls = TlsParameters::builder(place.host.clone());
    if let Some(path) = field("ca") {
        let pem = std::fs::read(path).map_err(|_| wrong("its ca cannot be read"))?;
        let own = Certificate::from_pem(&pem).map_err(|_| wrong("its ca is no certificate"))?;
        tls = tls.add_root_certificate(own);
    }
    let tls = tls.build().map_err(|_| wrong("TLS cannot be set up"))?;
    let tls = match place.protection {
        Protection::Whole => Tls::Wrapper(tls),
        Protection::Upgraded => Tls::Required(tls),
        Protection::Missing => Tls::None,
    };
    let mut builder = SmtpTransport::builder_dangerous(&place.host)
        .port(place.port)
        .tls(tls)
        .timeout(Some(TIMEOUT));
    if let Some(user) = field("user") {
        let password = password.unwrap_or_default();
        builder = builder.credentials(Credentials::new(user.to_owned(), password.to_owned()));
    }
    Ok(builder.build())
}

fn message(email: &Email<'_>) -> Result<Message, Failed> {
    let field = |name: &str| email.connection.get(name).and_then(Json::as_str);
    let from = field("from").ok_or_else(|| Failed::Later("the connection has no `from`".into()))?;
    let from = mailbox(from)?;
    // The same id each time: a receiver's mailbox shows a repetition once.
    let id = format!("<{}@{}>", email.id, from.email.domain());
    let known: Vec<&str> = match email.to {
        [] => {
            field("to").unwrap_or_default().split(',').filter(|to| !to.trim().is_empty()).collect()
        }
        given => given.iter().map(String::as_str).collect(),
    };
    if known.is_empty() {
        return Err(Failed::Later("neither the rule nor the connection says to whom".into()));
    }
    let subject: String = email
        .subject
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_SUBJECT)
        .collect();
    let since = u64::try_from(email.at.0).unwrap_or(0);
    let mut builder = Message::builder()
        .from(from)
        .message_id(Some(id))
        .date(SystemTime::UNIX_EPOCH + Duration::from_micros(since))
        .subject(subject)
        .header(ContentType::TEXT_PLAIN);
    for to in known {
        builder = builder.to(mailbox(to)?);
    }
    // No holiday notice is to answer it.
    let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
    builder = builder.raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()));
    let unusable = |_| Failed::Refused("the e-mail cannot be written".to_owned());
    builder.body(email.text.to_owned()).map_err(unusable)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn places() {
        let found = |url: &str| place(url).map(|p| (p.host, p.port, p.protection));
        let at = |host: &str, port, protection| Ok((host.to_owned(), port, protection));
        assert_eq!(found("smtps://mail.example"), at("mail.example", 465, Protection::Whole));
        assert_eq!(found("smtp://mail.example/"), at("mail.example", 587, Protection::Upgraded));
        assert_eq!(found("smtp://[::1]:25?tls=none"), at("::1", 25, Protection::Missing));
        for bad in
            ["mail.example", "http://x", "smtp://", "smtp://u:p@x", "smtp://x:y", "smtp://x?a"]
        {
            assert!(place(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_message_has_one_id_and_no_line_of_anybody_elses() {
        let connection = json!({"from": "Kobza <kobza@example.org>", "to": "a@x.org, B <b@x.org>"});
        let email = Email {
            id: "rule-7",
            at: Timestamp(1_000_000),
            connection: &connection,
            to: &[],
            subject: "it failed\r\nBcc: evil@example.org",
            text: "why\n",
        };
        let text = String::from_utf8(message(&email).unwrap().formatted()).unwrap();
        assert!(text.contains("Message-ID: <rule-7@example.org>\r\n"), "{text}");
        assert!(text.contains("Auto-Submitted: auto-generated\r\n"), "{text}");
        assert!(text.contains("Date: Thu, 01 Jan 1970 00:00:01"), "{text}");
        assert!(!text.contains("\r\nBcc:"), "{text}");
        assert!(message(&Email { to: &["no address".to_owned()], ..email }).is_err());
    }

    #[test]
    fn a_password_needs_protection() {
        let of = |url: &str| transport(&json!({"url": url, "user": "u", "password": "p"})).err();
        let Some(Failed::Later(text)) = of("smtp://mail.example?tls=none") else { panic!() };
        assert!(text.contains("without TLS"), "{text}");
        assert!(of("smtp://127.0.0.1:2525?tls=none").is_none());
    }
}
