//! Who asks: tokens, people, sessions, and what each may do.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use kobza_model::{LaunchId, RunId, Timestamp};
use kobza_store::{ObjectQuery, Views, Write, kinds};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::ApiError;
use crate::state::ApiState;
use crate::vault::{LAUNCH_PREFIX, Vault};

/// What somebody may do in a namespace; each may do what those before it may.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Starts, stops, repeats and marks.
    Operator,
    /// Changes definitions, connections, variables, limits.
    Editor,
    /// Changes who may do what.
    Admin,
}

impl Role {
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "viewer" => Self::Viewer,
            "operator" => Self::Operator,
            "editor" => Self::Editor,
            "admin" => Self::Admin,
            _ => return None,
        })
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Editor => "editor",
            Self::Admin => "admin",
        }
    }
}

/// The namespace that means all of them.
pub const ANYWHERE: &str = "*";

/// Somebody whose credentials were right.
#[derive(Clone, Debug)]
pub struct Principal {
    pub name: String,
    /// No accounts exist, and the caller is on this machine.
    pub local: bool,
    /// By namespace; [`ANYWHERE`] for all.
    pub roles: BTreeMap<String, Role>,
    /// A running task of this run: it reaches nothing else.
    pub run: Option<RunId>,
}

impl Principal {
    fn local() -> Self {
        Self {
            name: "local".to_owned(),
            local: true,
            roles: BTreeMap::from([(ANYWHERE.to_owned(), Role::Admin)]),
            run: None,
        }
    }

    /// Who may see everything: what all followers are told is made for it.
    pub(crate) fn everywhere() -> Self {
        Self { local: false, ..Self::local() }
    }

    fn task(launch: LaunchId) -> Self {
        Self {
            name: format!("task:{}", launch.task_id()),
            local: false,
            roles: BTreeMap::new(),
            run: Some(launch.run),
        }
    }

    /// The role in a namespace; for what belongs to none (`None`), that which holds everywhere.
    #[must_use]
    pub fn role(&self, namespace: Option<&str>) -> Option<Role> {
        let own = namespace.and_then(|n| self.roles.get(n));
        own.max(self.roles.get(ANYWHERE)).copied()
    }

    /// Refuses who has a lesser role.
    pub fn need(&self, role: Role, namespace: Option<&str>) -> Result<(), ApiError> {
        if self.role(namespace).is_some_and(|own| own >= role) {
            return Ok(());
        }
        let place =
            namespace.map_or_else(|| "everywhere".to_owned(), |n| format!("in namespace {n:?}"));
        Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            format!("{} may not do this: it needs the role {} {place}", self.name, role.as_str()),
        ))
    }
}

/// A person as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UserRow {
    pub name: String,
    /// Argon2id, in the PHC text form.
    pub password: String,
    pub roles: BTreeMap<String, Role>,
    pub created_at: Timestamp,
    #[serde(default)]
    pub disabled: bool,
}

/// A token as stored: under the SHA-256 of its text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TokenRow {
    pub id: String,
    pub name: String,
    #[serde(default)]
    pub user: Option<String>,
    pub role: Role,
    /// All namespaces if absent.
    #[serde(default)]
    pub namespace: Option<String>,
    pub created_at: Timestamp,
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}

/// What a session begins with where it is sent as a bearer token.
const SESSION_PREFIX: &str = "kobza_session_";
/// What tokens begin with, so that scanners for leaked secrets know them.
const TOKEN_PREFIX: &str = "kobza_";

/// A new token's text and the key that it is stored under.
#[must_use]
pub(crate) fn new_token() -> (String, String) {
    let text = format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(random()));
    let key = token_key(&text);
    (text, key)
}

fn random() -> [u8; 32] {
    let mut bytes = [0u8; 32];
    // Two random UUIDs would have fixed bits; this is the system's generator itself.
    rand::Rng::fill_bytes(&mut rand::rng(), &mut bytes);
    bytes
}

/// SHA-256 in hexadecimal.
#[must_use]
pub(crate) fn token_key(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().fold(String::new(), |hex, b| hex + &format!("{b:02x}"))
}

/// Hashes a password (argon2id with the crate's recommended costs).
pub(crate) fn hash_password(password: &str) -> Result<String, ApiError> {
    use argon2::PasswordHasher as _;
    if password.chars().count() < 8 || password.len() > 1024 {
        return Err(ApiError::bad("a password has between 8 and 1024 characters"));
    }
    argon2::Argon2::default()
        .hash_password(password.as_bytes())
        .map(|hash| hash.to_string())
        .map_err(|e| ApiError::bad(format!("the password cannot be hashed: {e}")))
}

fn password_fits(password: &str, hash: &str) -> bool {
    use argon2::PasswordVerifier as _;
    argon2::PasswordHash::new(hash).is_ok_and(|hash| {
        argon2::Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
    })
}

/// How long a session lasts, in microseconds.
const SESSION: i64 = 12 * 3600 * 1_000_000;
pub(crate) const COOKIE: &str = "kobza_session";

/// Somebody who signed in, as stored: under the SHA-256 of the cookie, so that a restart ends no
/// session and a copy of the store opens none.
#[derive(Serialize, Deserialize)]
struct SessionRow {
    user: String,
    until: Timestamp,
}

fn session_write(key: String, row: Option<&SessionRow>) -> Result<Write, ApiError> {
    let value =
        row.map(serde_json::to_value).transpose().map_err(|e| ApiError::bad(e.to_string()))?;
    Ok(Write::PutObject { kind: kinds::SESSION, namespace: String::new(), key, value })
}

fn session_user(views: &dyn Views, text: &str, now: Timestamp) -> Result<Option<String>, ApiError> {
    let found = views.get_object(kinds::SESSION, "", &token_key(text))?;
    let row = found.and_then(|o| serde_json::from_value::<SessionRow>(o.value).ok());
    Ok(row.filter(|r| r.until > now).map(|r| r.user))
}

/// Wrong passwords of late, by name.
#[derive(Clone, Default)]
pub(crate) struct Guesses(Arc<Mutex<HashMap<String, (u32, Timestamp)>>>);

/// Wrong passwords for one name, none [`GUESSING`] after the one before, until more are refused.
const MAX_GUESSES: u32 = 10;
/// In microseconds.
const GUESSING: i64 = 5 * 60 * 1_000_000;
/// Names that are remembered.
const MAX_GUESSED: usize = 10_000;

impl Guesses {
    /// Names come from strangers: a long one must not fill the memory.
    fn key(name: &str) -> String {
        token_key(name)
    }

    fn check(&self, name: &str, now: Timestamp) -> Result<(), ApiError> {
        let Ok(map) = self.0.lock() else { return Ok(()) };
        match map.get(&Self::key(name)) {
            Some((count, since)) if *count >= MAX_GUESSES && now.0 - since.0 < GUESSING => {
                Err(ApiError::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "too_many",
                    "too many wrong passwords for this name",
                )
                .hint("try again in five minutes"))
            }
            _ => Ok(()),
        }
    }

    fn wrong(&self, name: &str, now: Timestamp) {
        let Ok(mut map) = self.0.lock() else { return };
        if map.len() >= MAX_GUESSED {
            map.retain(|_, (_, since)| now.0 - since.0 < GUESSING);
        }
        let entry = map.entry(Self::key(name)).or_insert((0, now));
        if now.0 - entry.1.0 >= GUESSING {
            entry.0 = 0;
        }
        *entry = (entry.0 + 1, now);
    }
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value)
}

fn unauthorized(message: &str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
        .hint("sign in, or send a token as `Authorization: Bearer ...`")
}

/// Whether any user or token exists.
pub fn accounts_exist(views: &dyn Views) -> Result<bool, kobza_store::ViewError> {
    for kind in [kinds::USER, kinds::TOKEN] {
        let query = kobza_store::ObjectQuery { kind, limit: 1, ..Default::default() };
        if !views.list_objects(&query)?.items.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn user(views: &dyn Views, name: &str) -> Result<Option<UserRow>, ApiError> {
    let found = views.get_object(kinds::USER, "", name)?;
    Ok(found.and_then(|o| serde_json::from_value::<UserRow>(o.value).ok()).filter(|u| !u.disabled))
}

fn of_user(user: UserRow) -> Principal {
    Principal { name: user.name, local: false, roles: user.roles, run: None }
}

fn of_token(
    views: &dyn Views,
    vault: &Vault,
    text: &str,
    now: Timestamp,
) -> Result<Principal, ApiError> {
    if text.starts_with(LAUNCH_PREFIX) {
        return of_launch(views, vault, text);
    }
    if let Some(session) = text.strip_prefix(SESSION_PREFIX) {
        return of_session(views, session, now)?
            .ok_or_else(|| unauthorized("the session has ended, or its user may not come in"));
    }
    let wrong = || unauthorized("the token is not known, or no longer valid");
    if !text.starts_with(TOKEN_PREFIX) || text.len() > 200 {
        return Err(wrong());
    }
    let object = views.get_object(kinds::TOKEN, "", &token_key(text))?.ok_or_else(wrong)?;
    let row: TokenRow = serde_json::from_value(object.value).map_err(|_| wrong())?;
    if row.expires_at.is_some_and(|at| at <= now) {
        return Err(unauthorized("the token has expired"));
    }
    let place = row.namespace.unwrap_or_else(|| ANYWHERE.to_owned());
    Ok(Principal {
        name: row.user.unwrap_or_else(|| format!("token:{}", row.name)),
        local: false,
        roles: BTreeMap::from([(place, row.role)]),
        run: None,
    })
}

/// A user by a session, while it lasts.
fn of_session(
    views: &dyn Views,
    text: &str,
    now: Timestamp,
) -> Result<Option<Principal>, ApiError> {
    let Some(name) = session_user(views, text, now)? else { return Ok(None) };
    Ok(user(views, &name)?.map(of_user))
}

/// A task by the token of its launch, while that is the one that runs.
fn of_launch(views: &dyn Views, vault: &Vault, text: &str) -> Result<Principal, ApiError> {
    let launch = vault
        .launch_of(text)
        .ok_or_else(|| unauthorized("the token is not known, or no longer valid"))?;
    let row = views.get_task(launch.task_id())?;
    let runs = row.is_some_and(|row| row.launch == launch.launch && !row.state.is_finished());
    if runs { Ok(Principal::task(launch)) } else { Err(unauthorized("the token's task has ended")) }
}

pub(crate) fn sign_in(
    views: &dyn Views,
    guesses: &Guesses,
    name: &str,
    password: &str,
) -> Result<Principal, ApiError> {
    let now = kobza_runtime::wall_now();
    guesses.check(name, now)?;
    let row = user(views, name)?;
    // A hash is computed for unknown names as well: the time must not tell who exists.
    let hash = row.as_ref().map_or(NOBODY.as_str(), |u| u.password.as_str());
    match (password_fits(password, hash), row) {
        (true, Some(row)) => Ok(of_user(row)),
        _ => {
            guesses.wrong(name, now);
            Err(unauthorized("the name or the password is not right"))
        }
    }
}

/// The hash of a password that nobody has.
static NOBODY: std::sync::LazyLock<String> =
    std::sync::LazyLock::new(|| hash_password(&new_token().0).unwrap_or_default());

impl ApiState {
    /// Begins a session for a name and a password; answers the text of its cookie.
    pub(crate) async fn sign_in(&self, name: &str, password: &str) -> Result<String, ApiError> {
        let (views, guesses) = (self.views.clone(), self.guesses.clone());
        let (name, password) = (name.to_owned(), password.to_owned());
        let found = tokio::task::spawn_blocking(move || {
            sign_in(views.as_ref(), &guesses, &name, &password)
        })
        .await
        .map_err(|e| ApiError::bad(e.to_string()))?;
        match found {
            Ok(principal) => self.begin_session(&principal.name).await,
            Err(error) => {
                // Guessing is slow on purpose.
                tokio::time::sleep(std::time::Duration::from_millis(300)).await;
                Err(error)
            }
        }
    }

    /// A bearer token for a name and a password: a session, with the user's own roles as they are
    /// whenever it is used.
    ///
    /// # Errors
    /// When they are wrong, or were guessed at too often.
    pub async fn session_token(&self, name: &str, password: &str) -> Result<String, ApiError> {
        Ok(format!("{SESSION_PREFIX}{}", self.sign_in(name, password).await?))
    }

    /// Begins a session; answers the text of its cookie. Sessions that have ended are removed.
    pub(crate) async fn begin_session(&self, user: &str) -> Result<String, ApiError> {
        let now = kobza_runtime::wall_now();
        let text = URL_SAFE_NO_PAD.encode(random());
        let row = SessionRow { user: user.to_owned(), until: now.saturating_add_micros(SESSION) };
        let query = ObjectQuery { kind: kinds::SESSION, limit: 100, ..Default::default() };
        let known = self.read(move |views| views.list_objects(&query)).await?;
        let mut writes = vec![session_write(token_key(&text), Some(&row))?];
        for object in known.items {
            let over = serde_json::from_value::<SessionRow>(object.value)
                .map_or(true, |row| row.until <= now);
            if over {
                writes.push(session_write(object.key, None)?);
            }
        }
        self.write(writes).await?;
        Ok(text)
    }

    pub(crate) async fn end_session(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        match cookie(headers) {
            Some(text) => self.write(vec![session_write(token_key(text), None)?]).await,
            None => Ok(()),
        }
    }

    /// Who sends these headers. Bearer tokens, basic credentials (a user's, or a token as the
    /// password), or a session's cookie; without accounts everybody on this machine.
    pub async fn principal(&self, headers: &HeaderMap) -> Result<Principal, ApiError> {
        let given = headers.get(header::AUTHORIZATION).map(|v| v.to_str().map(str::to_owned));
        let session = cookie(headers).map(str::to_owned);
        let (views, guesses, loopback) = (self.views.clone(), self.guesses.clone(), self.loopback);
        let vault = self.vault.clone();
        let found = tokio::task::spawn_blocking(move || -> Result<Principal, ApiError> {
            let now = kobza_runtime::wall_now();
            let views = views.as_ref();
            if let Some(given) = given {
                let given =
                    given.map_err(|_| unauthorized("the Authorization header is not text"))?;
                let (scheme, value) = given.split_once(' ').unwrap_or((&given, ""));
                if scheme.eq_ignore_ascii_case("bearer") {
                    return of_token(views, &vault, value.trim(), now);
                }
                if scheme.eq_ignore_ascii_case("basic") {
                    let pair = STANDARD
                        .decode(value.trim())
                        .ok()
                        .and_then(|b| String::from_utf8(b).ok())
                        .ok_or_else(|| unauthorized("the basic credentials are not readable"))?;
                    let (name, password) = pair
                        .split_once(':')
                        .ok_or_else(|| unauthorized("the basic credentials are not readable"))?;
                    if password.starts_with(TOKEN_PREFIX) {
                        return of_token(views, &vault, password, now);
                    }
                    return sign_in(views, &guesses, name, password);
                }
                return Err(unauthorized("this way to authenticate is not known here"));
            }
            if let Some(text) = session
                && let Some(principal) = of_session(views, &text, now)?
            {
                return Ok(principal);
            }
            if loopback && !accounts_exist(views)? {
                return Ok(Principal::local());
            }
            Err(unauthorized("this server wants to know who you are"))
        })
        .await;
        found.map_err(|e| ApiError::bad(e.to_string()))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_hold_where_they_are_given() {
        let roles =
            BTreeMap::from([("a".to_owned(), Role::Editor), (ANYWHERE.to_owned(), Role::Viewer)]);
        let principal = Principal { name: "p".to_owned(), local: false, roles, run: None };
        assert!(principal.need(Role::Editor, Some("a")).is_ok());
        assert!(principal.need(Role::Operator, Some("b")).is_err());
        assert!(principal.need(Role::Viewer, Some("b")).is_ok());
        assert!(principal.need(Role::Operator, None).is_err());
    }

    #[test]
    fn passwords() {
        let hash = hash_password("correct horse").unwrap();
        assert!(hash.starts_with("$argon2id$"));
        assert!(password_fits("correct horse", &hash));
        assert!(!password_fits("correct hors", &hash));
        assert!(hash_password("short").is_err());
    }
}
