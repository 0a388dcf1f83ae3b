//! Secrets at rest: AES-256-GCM under a key from a file or the environment.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kobza_model::Json;
use kobza_store::{Store, kinds};
use serde_json::{Map, json};
use sha2::{Digest as _, Sha256};

/// The environment's variable with the key: 32 bytes in base64, or any longer text.
pub const KEY_VARIABLE: &str = "KOBZA_SECRET_KEY";
const KEY_FILE: &str = "secret.key";
const NONCE: usize = 12;

/// Why a secret cannot be used. Says nothing of its content.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    #[error("the key file {0}: {1}")]
    KeyFile(String, std::io::Error),
    #[error("{0} is not a key: it must hold at least 32 characters")]
    Key(String),
    #[error(
        "a stored secret cannot be decrypted: the key is another one, or the value was changed"
    )]
    Decrypt,
    #[error("a secret cannot be encrypted")]
    Encrypt,
}

/// Encrypts and decrypts. Each value has its own data key, which is itself encrypted.
pub struct Vault {
    key: Aes256Gcm,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault")
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0u8; N];
    rand::Rng::fill_bytes(&mut rand::rng(), &mut bytes);
    bytes
}

fn cipher(key: &[u8; 32]) -> Aes256Gcm {
    Aes256Gcm::new(&(*key).into())
}

fn seal(cipher: &Aes256Gcm, plain: &[u8], place: &[u8]) -> Result<Vec<u8>, VaultError> {
    let nonce: [u8; NONCE] = random();
    let sealed = cipher
        .encrypt(&Nonce::from(nonce), Payload { msg: plain, aad: place })
        .map_err(|_| VaultError::Encrypt)?;
    Ok([nonce.as_slice(), &sealed].concat())
}

fn open(cipher: &Aes256Gcm, sealed: &[u8], place: &[u8]) -> Result<Vec<u8>, VaultError> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE>().ok_or(VaultError::Decrypt)?;
    cipher
        .decrypt(&Nonce::from(*nonce), Payload { msg: sealed, aad: place })
        .map_err(|_| VaultError::Decrypt)
}

impl Vault {
    /// The key of the environment, or of the file in the data folder, which is made at first.
    pub fn open(data: &Path) -> Result<Self, VaultError> {
        if let Ok(text) = std::env::var(KEY_VARIABLE) {
            return Self::from_text(&text).ok_or_else(|| VaultError::Key(KEY_VARIABLE.to_owned()));
        }
        let path = data.join(KEY_FILE);
        let named = |e| VaultError::KeyFile(path.display().to_string(), e);
        let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        match made {
            Ok(mut file) => {
                let text = STANDARD.encode(random::<32>());
                file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(named)?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(named(error)),
        }
        let text = std::fs::read_to_string(&path).map_err(named)?;
        Self::from_text(text.trim()).ok_or_else(|| VaultError::Key(path.display().to_string()))
    }

    fn from_text(text: &str) -> Option<Self> {
        let decoded = STANDARD.decode(text).ok().and_then(|b| <[u8; 32]>::try_from(b).ok());
        let key = match decoded {
            Some(key) => key,
            None if text.len() >= 32 => Sha256::digest(text.as_bytes()).into(),
            None => return None,
        };
        Some(Self { key: cipher(&key) })
    }

    /// Encrypts a value for its place (kind, namespace, name): elsewhere it cannot be decrypted.
    pub fn seal(&self, place: (&str, &str, &str), value: &Json) -> Result<Json, VaultError> {
        let place = format!("{}\n{}\n{}", place.0, place.1, place.2);
        let data_key: [u8; 32] = random();
        let sealed = seal(&cipher(&data_key), value.to_string().as_bytes(), place.as_bytes())?;
        let key = seal(&self.key, &data_key, place.as_bytes())?;
        Ok(json!({"v": 1, "key": STANDARD.encode(key), "data": STANDARD.encode(sealed)}))
    }

    pub fn unseal(&self, place: (&str, &str, &str), sealed: &Json) -> Result<Json, VaultError> {
        let place = format!("{}\n{}\n{}", place.0, place.1, place.2);
        let part = |field: &str| {
            sealed
                .get(field)
                .and_then(Json::as_str)
                .and_then(|text| STANDARD.decode(text).ok())
                .ok_or(VaultError::Decrypt)
        };
        let data_key = open(&self.key, &part("key")?, place.as_bytes())?;
        let data_key: [u8; 32] = data_key.try_into().map_err(|_| VaultError::Decrypt)?;
        let plain = open(&cipher(&data_key), &part("data")?, place.as_bytes())?;
        serde_json::from_slice(&plain).map_err(|_| VaultError::Decrypt)
    }

    /// What tasks get: variables, secrets and connections of a namespace by name, decrypted; objects
    /// of other kinds as they are stored.
    #[must_use]
    pub fn lookup(
        &self,
        store: &dyn Store,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Option<Json> {
        let read = |kind: &str| match store.object(kind, namespace, name) {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(%error, kind, name, "a value could not be read");
                None
            }
        };
        if let Some(kind) = kind.strip_prefix("sealed/") {
            // Only what is not shown of it.
            let found = read(kind)?;
            return self
                .told(found.get("sealed").filter(|s| !s.is_null())?, (kind, namespace, name));
        }
        let found = match kind {
            // A secret is a variable that is not shown.
            kinds::SECRET => read(kinds::SECRET).or_else(|| read(kinds::VARIABLE))?,
            _ => read(kind)?,
        };
        match kind {
            kinds::VARIABLE | kinds::SECRET => match found.get("sealed") {
                Some(sealed) => self.told(sealed, (kinds::VARIABLE, namespace, name)),
                None => found.get("value").cloned(),
            },
            kinds::CONNECTION => {
                let mut all =
                    found.get("fields").and_then(Json::as_object).cloned().unwrap_or_default();
                if let Some(sealed) = found.get("sealed").filter(|s| !s.is_null())
                    && let Json::Object(secrets) = self.told(sealed, (kind, namespace, name))?
                {
                    all.extend(secrets);
                }
                if !all.contains_key("kind")
                    && let Some(kind) = found.get("kind")
                {
                    all.insert("kind".to_owned(), kind.clone());
                }
                with_url(&mut all);
                Some(Json::Object(all))
            }
            _ => Some(found),
        }
    }

    fn told(&self, sealed: &Json, place: (&str, &str, &str)) -> Option<Json> {
        match self.unseal(place, sealed) {
            Ok(value) => Some(value),
            Err(error) => {
                tracing::error!(%error, name = place.2, "a secret is not usable");
                None
            }
        }
    }
}

/// Bodies want an address; people fill in fields.
fn with_url(all: &mut Map<String, Json>) {
    if all.contains_key("url") {
        return;
    }
    let text = |field: &str| all.get(field).and_then(Json::as_str).map(encode);
    let kind = all.get("kind").and_then(Json::as_str).unwrap_or_default();
    let url = match kind {
        "sqlite" => all.get("path").and_then(Json::as_str).map(|path| format!("sqlite:{path}")),
        "postgres" | "postgresql" | "mysql" => text("host").map(|host| {
            let user = text("user").or_else(|| text("login")).unwrap_or_default();
            let password = text("password").map(|p| format!(":{p}")).unwrap_or_default();
            let at = if user.is_empty() { "" } else { "@" };
            let port = all
                .get("port")
                .filter(|p| !p.is_null())
                .map(|p| format!(":{}", p.to_string().trim_matches('"')))
                .unwrap_or_default();
            let database = text("database").or_else(|| text("schema")).unwrap_or_default();
            format!("{kind}://{user}{password}{at}{host}{port}/{database}")
        }),
        _ => None,
    };
    if let Some(url) = url {
        all.insert("url".to_owned(), url.into());
    }
}

fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out += &format!("%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_for_one_place_under_one_key() {
        let vault = Vault::from_text(&"k".repeat(40)).unwrap();
        let place = ("variable", "default", "x");
        let sealed = vault.seal(place, &json!("hunter2")).unwrap();
        assert!(!sealed.to_string().contains("hunter2"));
        assert_eq!(vault.unseal(place, &sealed).unwrap(), json!("hunter2"));
        assert!(vault.unseal(("variable", "default", "y"), &sealed).is_err());
        let other = Vault::from_text(&"j".repeat(40)).unwrap();
        assert!(other.unseal(place, &sealed).is_err());
        assert!(Vault::from_text("short").is_none());
    }

    #[test]
    fn the_key_file_is_private_and_stays() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let place = ("variable", "default", "x");
        let sealed = Vault::open(folder.path()).unwrap().seal(place, &json!(1)).unwrap();
        let mode = std::fs::metadata(folder.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(Vault::open(folder.path()).unwrap().unseal(place, &sealed).unwrap(), json!(1));
    }
}
