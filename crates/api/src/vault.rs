//! Secrets at rest: AES-256-GCM under a key from a file or the environment.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac as _};
use kobza_model::{Json, LaunchId};
use kobza_store::{ObjectQuery, Store, Views, Write, kinds};
use serde_json::{Map, json};
use sha2::{Digest as _, Sha256};

/// The environment's variable with the key: 32 bytes in base64, or any longer text.
pub const KEY_VARIABLE: &str = "KOBZA_SECRET_KEY";
/// The variable with the key before.
const OLD_KEY_VARIABLE: &str = "KOBZA_SECRET_KEY_OLD";
const KEY_FILE: &str = "secret.key";
const OLD_KEY_FILE: &str = "secret.key.old";
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
    #[error(transparent)]
    View(#[from] kobza_store::ViewError),
}

/// Encrypts and decrypts. Each value has its own data key, which is itself encrypted.
pub struct Vault {
    current: Key,
    /// The key before: what it sealed can be read still, until it is sealed anew.
    old: Option<Key>,
}

struct Key {
    cipher: Aes256Gcm,
    /// Signs the tokens of launches; follows from the key.
    signing: [u8; 32],
}

/// What the token of a launch begins with.
pub(crate) const LAUNCH_PREFIX: &str = "kobza_task_";

fn signature(key: &[u8; 32], text: &[u8]) -> Hmac<Sha256> {
    use hmac::KeyInit as _;
    // HMAC takes keys of every length.
    let mut mac = match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mac) => mac,
        Err(_) => unreachable!("a key of 32 bytes"),
    };
    mac.update(text);
    mac
}

impl Key {
    fn from_text(text: &str) -> Option<Self> {
        let decoded = STANDARD.decode(text).ok().and_then(|b| <[u8; 32]>::try_from(b).ok());
        let key: [u8; 32] = match decoded {
            Some(key) => key,
            None if text.len() >= 32 => Sha256::digest(text.as_bytes()).into(),
            None => return None,
        };
        let signing = signature(&key, b"tokens of launches").finalize().into_bytes().into();
        Some(Self { cipher: cipher(&key), signing })
    }

    fn of_file(path: &Path) -> Result<Option<Self>, VaultError> {
        let name = || path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => {
                Self::from_text(text.trim()).map(Some).ok_or_else(|| VaultError::Key(name()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(VaultError::KeyFile(name(), error)),
        }
    }
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
    /// The key of the environment, or of the file in the data folder, which is made at first; and
    /// the key before it, where there is one.
    pub fn open(data: &Path) -> Result<Self, VaultError> {
        let old = match std::env::var(OLD_KEY_VARIABLE) {
            Ok(text) => {
                let wrong = || VaultError::Key(OLD_KEY_VARIABLE.to_owned());
                Some(Key::from_text(&text).ok_or_else(wrong)?)
            }
            Err(_) => Key::of_file(&data.join(OLD_KEY_FILE))?,
        };
        if let Ok(text) = std::env::var(KEY_VARIABLE) {
            let wrong = || VaultError::Key(KEY_VARIABLE.to_owned());
            return Ok(Self { current: Key::from_text(&text).ok_or_else(wrong)?, old });
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
        let gone = || named(std::io::ErrorKind::NotFound.into());
        Ok(Self { current: Key::of_file(&path)?.ok_or_else(gone)?, old })
    }

    /// The token of a launch: with it a task asks about its own run, as long as it runs.
    #[must_use]
    pub fn launch_token(&self, launch: LaunchId) -> String {
        let name = launch.to_string();
        let sum = signature(&self.current.signing, name.as_bytes()).finalize().into_bytes();
        format!("{LAUNCH_PREFIX}{name}.{}", URL_SAFE_NO_PAD.encode(sum))
    }

    /// The launch that a token was made for.
    pub(crate) fn launch_of(&self, token: &str) -> Option<LaunchId> {
        let (name, sum) = token.strip_prefix(LAUNCH_PREFIX)?.rsplit_once('.')?;
        let sum = URL_SAFE_NO_PAD.decode(sum).ok()?;
        let mut keys = std::iter::once(&self.current).chain(&self.old);
        let good =
            keys.any(|key| signature(&key.signing, name.as_bytes()).verify_slice(&sum).is_ok());
        if good { name.parse().ok() } else { None }
    }

    /// Encrypts a value for its place (kind, namespace, name): elsewhere it cannot be decrypted.
    pub fn seal(&self, place: (&str, &str, &str), value: &Json) -> Result<Json, VaultError> {
        let place = format!("{}\n{}\n{}", place.0, place.1, place.2);
        let data_key: [u8; 32] = random();
        let sealed = seal(&cipher(&data_key), value.to_string().as_bytes(), place.as_bytes())?;
        let key = seal(&self.current.cipher, &data_key, place.as_bytes())?;
        Ok(json!({"v": 1, "key": STANDARD.encode(key), "data": STANDARD.encode(sealed)}))
    }

    pub fn unseal(&self, place: (&str, &str, &str), sealed: &Json) -> Result<Json, VaultError> {
        self.opened(place, sealed).map(|(value, _)| value)
    }

    /// The value, and whether it is under the current key.
    fn opened(&self, place: (&str, &str, &str), sealed: &Json) -> Result<(Json, bool), VaultError> {
        let place = format!("{}\n{}\n{}", place.0, place.1, place.2);
        let part = |field: &str| {
            sealed
                .get(field)
                .and_then(Json::as_str)
                .and_then(|text| STANDARD.decode(text).ok())
                .ok_or(VaultError::Decrypt)
        };
        let sealed_key = part("key")?;
        let mut opened = open(&self.current.cipher, &sealed_key, place.as_bytes());
        let is_current = opened.is_ok();
        if let (Err(_), Some(old)) = (&opened, &self.old) {
            opened = open(&old.cipher, &sealed_key, place.as_bytes());
        }
        let data_key: [u8; 32] = opened?.try_into().map_err(|_| VaultError::Decrypt)?;
        let plain = open(&cipher(&data_key), &part("data")?, place.as_bytes())?;
        let value = serde_json::from_slice(&plain).map_err(|_| VaultError::Decrypt)?;
        Ok((value, is_current))
    }

    /// Writes that put under the current key what the key before it sealed; none without one.
    pub fn renew(&self, views: &dyn Views) -> Result<Vec<Write>, VaultError> {
        let mut writes = Vec::new();
        if self.old.is_none() {
            return Ok(writes);
        }
        for kind in [kinds::VARIABLE, kinds::CONNECTION] {
            let mut cursor: Option<String> = None;
            loop {
                let query = ObjectQuery {
                    kind,
                    cursor: cursor.as_deref(),
                    limit: 1000,
                    ..Default::default()
                };
                let page = views.list_objects(&query)?;
                for mut object in page.items {
                    let place = (kind, object.namespace.as_str(), object.key.as_str());
                    let Some(sealed) = object.value.get("sealed").filter(|s| !s.is_null()) else {
                        continue;
                    };
                    let renewed = match self.opened(place, sealed) {
                        Ok((_, true)) => continue,
                        Ok((value, false)) => self.seal(place, &value)?,
                        Err(error) => {
                            tracing::error!(%error, name = place.2, "a secret is not usable");
                            continue;
                        }
                    };
                    object.value["sealed"] = renewed;
                    writes.push(Write::PutObject {
                        kind,
                        namespace: object.namespace,
                        key: object.key,
                        value: Some(object.value),
                    });
                }
                match page.next {
                    Some(next) => cursor = Some(next),
                    None => break,
                }
            }
        }
        Ok(writes)
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
            return self.hidden(&read(kind)?, (kind, namespace, name));
        }
        let found = match kind {
            // A secret is a variable that is not shown.
            kinds::SECRET => read(kinds::SECRET).or_else(|| read(kinds::VARIABLE))?,
            _ => read(kind)?,
        };
        match kind {
            kinds::VARIABLE | kinds::SECRET => {
                if found.get("sealed").is_some() || found.get("from").is_some() {
                    return self.hidden(&found, (kinds::VARIABLE, namespace, name));
                }
                found.get("value").cloned()
            }
            kinds::CONNECTION => {
                let mut all =
                    found.get("fields").and_then(Json::as_object).cloned().unwrap_or_default();
                if let Some(Json::Object(secrets)) = self.hidden(&found, (kind, namespace, name)) {
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

    /// What is not shown of an object: what is sealed, and what is kept elsewhere.
    fn hidden(&self, found: &Json, place: (&str, &str, &str)) -> Option<Json> {
        let sealed = found.get("sealed").filter(|s| !s.is_null());
        if place.0 != kinds::CONNECTION {
            return match sealed {
                Some(sealed) => self.told(sealed, place),
                None => crate::reference::resolve(found.get("from")?),
            };
        }
        let mut all = match sealed {
            Some(sealed) => match self.told(sealed, place)? {
                Json::Object(secrets) => secrets,
                _ => Map::new(),
            },
            None => Map::new(),
        };
        for (field, reference) in found.get("from").and_then(Json::as_object).into_iter().flatten()
        {
            all.insert(field.clone(), crate::reference::resolve(reference)?);
        }
        (!all.is_empty()).then_some(Json::Object(all))
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

    fn of(letter: &str) -> Vault {
        Vault { current: Key::from_text(&letter.repeat(40)).unwrap(), old: None }
    }

    #[test]
    fn what_the_key_before_sealed_can_be_read() {
        let place = ("variable", "default", "x");
        let sealed = of("k").seal(place, &json!("hunter2")).unwrap();
        let both = Vault { old: Some(of("k").current), ..of("j") };
        assert_eq!(both.unseal(place, &sealed).unwrap(), json!("hunter2"));
        let renewed = both.seal(place, &json!("hunter2")).unwrap();
        assert_eq!(of("j").unseal(place, &renewed).unwrap(), json!("hunter2"));
        assert!(of("k").unseal(place, &renewed).is_err());
    }

    #[test]
    fn sealed_for_one_place_under_one_key() {
        let vault = of("k");
        let place = ("variable", "default", "x");
        let sealed = vault.seal(place, &json!("hunter2")).unwrap();
        assert!(!sealed.to_string().contains("hunter2"));
        assert_eq!(vault.unseal(place, &sealed).unwrap(), json!("hunter2"));
        assert!(vault.unseal(("variable", "default", "y"), &sealed).is_err());
        let other = of("j");
        assert!(other.unseal(place, &sealed).is_err());
        assert!(Key::from_text("short").is_none());
    }

    #[test]
    fn tokens_of_launches_are_of_one_key() {
        let vault = of("k");
        let id = "01a227ce-436e-7477-9fe1-fdd5a3f0d611.3.1";
        let launch: LaunchId = id.parse().unwrap();
        let token = vault.launch_token(launch);
        assert_eq!(vault.launch_of(&token), Some(launch));
        assert_eq!(vault.launch_of(&token.replace(".3.1.", ".3.2.")), None);
        assert_eq!(vault.launch_of(&token[..token.len() - 2]), None);
        assert_eq!(vault.launch_of(&format!("{LAUNCH_PREFIX}{id}.")), None);
        let other = of("j");
        assert_eq!(other.launch_of(&token), None);
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
