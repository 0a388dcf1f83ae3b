//! Proof of who sent a webhook, and that it is no repetition.
//!
//! A delivery is accepted if its signature over the raw body is right (compared in constant time)
//! and, where the scheme signs the time, if that time is near. Its id becomes the slot of the
//! trigger, so a repeated delivery finds its slot taken and starts nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use kobza_model::Timestamp;
use sha2::{Digest, Sha256};

use crate::WebhookScheme;

/// Largest body accepted, in bytes.
pub const MAX_BODY_BYTES: usize = 1 << 20;
/// How far a signed time may lie from ours, in microseconds.
const TOLERANCE: i64 = 5 * 60 * 1_000_000;
const MAX_ID_CHARS: usize = 150;

/// Why a delivery was refused. Says nothing about the secret or the right signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WebhookError {
    #[error("the body is longer than 1 MiB")]
    TooLong,
    #[error("the header {0} is missing")]
    Missing(&'static str),
    #[error("the signature is not right")]
    Signature,
    #[error("the delivery's time is too far from now")]
    Time,
    #[error("the trigger's secret is not usable")]
    Secret,
}

/// Verifies a delivery and answers its id. `header` looks a header up by its lower-case name.
/// Without a scheme the delivery's headers tell which it is; all of them prove the secret.
pub fn verify<'h>(
    scheme: Option<WebhookScheme>,
    secret: &[u8],
    header: impl Fn(&str) -> Option<&'h str>,
    body: &[u8],
    now: Timestamp,
) -> Result<String, WebhookError> {
    if body.len() > MAX_BODY_BYTES {
        return Err(WebhookError::TooLong);
    }
    if secret.is_empty() {
        return Err(WebhookError::Secret);
    }
    let scheme = scheme.unwrap_or_else(|| {
        if header("x-hub-signature-256").is_some() {
            WebhookScheme::GitHub
        } else if header("x-slack-signature").is_some() {
            WebhookScheme::Slack
        } else if header("x-gitlab-token").is_some() {
            WebhookScheme::GitLab
        } else {
            WebhookScheme::Standard
        }
    });
    let need = |name: &'static str| header(name).ok_or(WebhookError::Missing(name));
    match scheme {
        WebhookScheme::GitHub => {
            let signature = need("x-hub-signature-256")?;
            let hex = signature.strip_prefix("sha256=").ok_or(WebhookError::Signature)?;
            check(secret, &[body], &from_hex(hex).ok_or(WebhookError::Signature)?)?;
            // This scheme does not sign the id; without one the body stands for it.
            Ok(header("x-github-delivery").map_or_else(|| id_of(&[body]), plain_id))
        }
        WebhookScheme::Slack => {
            let time = need("x-slack-request-timestamp")?;
            near(time, now)?;
            let signature = need("x-slack-signature")?;
            let hex = signature.strip_prefix("v0=").ok_or(WebhookError::Signature)?;
            let expected = from_hex(hex).ok_or(WebhookError::Signature)?;
            check(secret, &[b"v0:", time.as_bytes(), b":", body], &expected)?;
            Ok(id_of(&[time.as_bytes(), body]))
        }
        WebhookScheme::Standard => {
            let (id, time) = (need("webhook-id")?, need("webhook-timestamp")?);
            near(time, now)?;
            let key = standard_key(secret)?;
            let parts: [&[u8]; 5] = [id.as_bytes(), b".", time.as_bytes(), b".", body];
            // Several signatures may be given while a secret is replaced.
            let signed = need("webhook-signature")?.split(' ').take(10).any(|signature| {
                signature
                    .strip_prefix("v1,")
                    .and_then(|text| STANDARD.decode(text).ok())
                    .is_some_and(|expected| check(&key, &parts, &expected).is_ok())
            });
            if !signed {
                return Err(WebhookError::Signature);
            }
            Ok(plain_id(id))
        }
        WebhookScheme::GitLab => {
            // Both are hashed first, so the comparison tells nothing about lengths either.
            let given = Sha256::digest(need("x-gitlab-token")?.as_bytes());
            check(&Sha256::digest(secret), &[b"token"], &tag(&given, &[b"token"])?)?;
            Ok(header("x-gitlab-event-uuid").map_or_else(|| id_of(&[body]), plain_id))
        }
    }
}

/// The id of a delivery that is not signed: what it says itself, else a new one for each moment.
pub fn unsigned_id<'h>(
    header: impl Fn(&str) -> Option<&'h str>,
    body: &[u8],
    now: Timestamp,
) -> Result<String, WebhookError> {
    if body.len() > MAX_BODY_BYTES {
        return Err(WebhookError::TooLong);
    }
    let id = ["idempotency-key", "webhook-id", "x-github-delivery"].iter().find_map(|n| header(n));
    Ok(id.map_or_else(|| id_of(&[&now.0.to_le_bytes(), body]), plain_id))
}

fn mac(key: &[u8], parts: &[&[u8]]) -> Result<Hmac<Sha256>, WebhookError> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|_| WebhookError::Secret)?;
    parts.iter().for_each(|part| mac.update(part));
    Ok(mac)
}

fn tag(key: &[u8], parts: &[&[u8]]) -> Result<Vec<u8>, WebhookError> {
    Ok(mac(key, parts)?.finalize().into_bytes().to_vec())
}

/// Compares in constant time.
fn check(key: &[u8], parts: &[&[u8]], expected: &[u8]) -> Result<(), WebhookError> {
    mac(key, parts)?.verify_slice(expected).map_err(|_| WebhookError::Signature)
}

fn near(seconds: &str, now: Timestamp) -> Result<(), WebhookError> {
    let seconds: i64 = seconds.parse().map_err(|_| WebhookError::Time)?;
    let sent = seconds.checked_mul(1_000_000).ok_or(WebhookError::Time)?;
    let distance = now.0.checked_sub(sent).and_then(i64::checked_abs).ok_or(WebhookError::Time)?;
    if distance > TOLERANCE { Err(WebhookError::Time) } else { Ok(()) }
}

/// `whsec_` and base64, or the bytes as they are.
fn standard_key(secret: &[u8]) -> Result<Vec<u8>, WebhookError> {
    match secret.strip_prefix(b"whsec_") {
        Some(encoded) => STANDARD.decode(encoded.trim_ascii()).map_err(|_| WebhookError::Secret),
        None => Ok(secret.to_vec()),
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    (0..64).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

fn id_of(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize()[..16].iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// An id that is safe in keys; an unusual one is replaced by its hash.
fn plain_id(id: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    if !id.is_empty() && id.len() <= MAX_ID_CHARS && id.chars().all(plain) && !id.contains("..") {
        id.to_owned()
    } else {
        id_of(&[id.as_bytes()])
    }
}
