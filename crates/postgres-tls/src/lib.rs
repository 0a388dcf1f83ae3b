//! How PostgreSQL is connected to: by a URL with the TLS parameters of libpq.
//!
//! `sslmode` is `disable`, `prefer` (as when absent: encrypted where the server can, nothing is
//! verified), `require` (encrypted; verified as by `verify-ca` when `sslrootcert` is given),
//! `verify-ca` or `verify-full`. `sslrootcert` is a file of PEM certificates, or `system`, as when
//! absent; `sslcert` and `sslkey` are the client's own.

mod stream;
mod verify;

use std::str::FromStr as _;
use std::sync::Arc;

use postgres::config::{Host, SslMode};
use postgres::{Client, Config, NoTls};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use stream::Connector;
use verify::Verify;

/// A URL cannot be used. The message never holds the URL: it may have a password.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error(transparent)]
    Url(postgres::Error),
    #[error("sslmode: {0:?} is none of disable, prefer, require, verify-ca, verify-full")]
    Mode(String),
    #[error("{parameter}: {path}: {error}")]
    File { parameter: &'static str, path: String, error: String },
    #[error("{0}")]
    Parameter(&'static str),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// A database to connect to.
pub struct Target {
    /// All but TLS.
    pub config: Config,
    tls: Option<Connector>,
}

#[derive(Default)]
struct Parameters {
    mode: Option<String>,
    root: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

impl Target {
    /// Reads a URL, and the files that it names.
    ///
    /// # Errors
    /// What of it is wrong.
    pub fn parse(url: &str) -> Result<Self, TargetError> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut own = Parameters::default();
        let mut rest = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let place = match name {
                "sslmode" => &mut own.mode,
                "sslrootcert" => &mut own.root,
                "sslcert" => &mut own.certificate,
                "sslkey" => &mut own.key,
                _ => {
                    rest.push(pair);
                    continue;
                }
            };
            *place = Some(decoded(value));
        }
        let separator = if rest.is_empty() { "" } else { "?" };
        let mut config = Config::from_str(&format!("{base}{separator}{}", rest.join("&")))
            .map_err(TargetError::Url)?;
        let verify = match (own.mode.as_deref().unwrap_or("prefer"), &own.root) {
            ("disable", _) => None,
            ("prefer", _) | ("require", None) => Some(Verify::Nothing),
            ("require" | "verify-ca", _) => Some(Verify::Chain),
            ("verify-full", _) => Some(Verify::Name),
            (other, _) => return Err(TargetError::Mode(other.chars().take(30).collect())),
        };
        // A socket of this machine is never encrypted, whatever is asked for.
        let local = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        let Some(verify) = verify.filter(|_| !local || config.get_hosts().is_empty()) else {
            config.ssl_mode(SslMode::Disable);
            return Ok(Self { config, tls: None });
        };
        let preferred = own.mode.as_deref().is_none_or(|mode| mode == "prefer");
        config.ssl_mode(if preferred { SslMode::Prefer } else { SslMode::Require });
        let tls = client(verify, &own)?;
        Ok(Self { config, tls: Some(Connector::new(tls)) })
    }

    /// Connects.
    ///
    /// # Errors
    /// Nobody answers, the password or the certificate is wrong.
    pub fn connect(&self) -> Result<Client, postgres::Error> {
        match &self.tls {
            Some(tls) => self.config.connect(tls.clone()),
            None => self.config.connect(NoTls),
        }
    }
}

fn client(verify: Verify, own: &Parameters) -> Result<ClientConfig, TargetError> {
    let roots = match (verify, own.root.as_deref()) {
        (Verify::Nothing, _) => RootCertStore::empty(),
        (_, None | Some("system")) => system_roots(),
        (_, Some(path)) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates("sslrootcert", path)? {
                roots.add(certificate)?;
            }
            roots
        }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verify.verifier(roots, &provider)?);
    let mut config = match (&own.certificate, &own.key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(certificate), Some(key)) => {
            let chain = certificates("sslcert", certificate)?;
            let read = PrivateKeyDer::from_pem_file(key);
            let key = read.map_err(|e| file("sslkey", key, &e))?;
            builder.with_client_auth_cert(chain, key)?
        }
        _ => return Err(TargetError::Parameter("sslcert and sslkey are given together")),
    };
    // Servers that are asked for a direct connection want to hear it.
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(config)
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // One that is not readable is left out: the others still say whom to trust.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn file(parameter: &'static str, path: &str, error: &dyn std::fmt::Display) -> TargetError {
    TargetError::File { parameter, path: path.to_owned(), error: error.to_string() }
}

fn certificates(
    parameter: &'static str,
    path: &str,
) -> Result<Vec<CertificateDer<'static>>, TargetError> {
    let read = CertificateDer::pem_file_iter(path).map_err(|e| file(parameter, path, &e))?;
    let all: Result<Vec<_>, _> = read.collect();
    let all = all.map_err(|e| file(parameter, path, &e))?;
    if all.is_empty() {
        return Err(file(parameter, path, &"there is no certificate in it"));
    }
    Ok(all)
}

/// A part of a URL without its percent signs.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) if bytes[at] == b'%' => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(query: &str) -> (SslMode, bool) {
        let target = Target::parse(&format!("postgres://me@host/db{query}")).unwrap();
        (target.config.get_ssl_mode(), target.tls.is_some())
    }

    #[test]
    fn modes() {
        assert_eq!(mode(""), (SslMode::Prefer, true));
        assert_eq!(mode("?sslmode=disable"), (SslMode::Disable, false));
        for required in ["require", "verify-ca", "verify-full"] {
            assert_eq!(mode(&format!("?sslmode={required}")), (SslMode::Require, true));
        }
        let local = Target::parse("postgres:///db?host=/run/postgresql&sslmode=require").unwrap();
        assert_eq!(local.config.get_ssl_mode(), SslMode::Disable);
    }

    #[test]
    fn bad_parameters_are_told_without_the_url() {
        for (query, word) in [
            ("sslmode=allow", "sslmode"),
            ("sslmode=verify-ca&sslrootcert=/nowhere%20at/all", "/nowhere at/all"),
            ("sslmode=require&sslcert=/x", "together"),
            ("sslmode=require&nonsense=1", "nonsense"),
        ] {
            let error = Target::parse(&format!("postgres://me:secret@host/db?{query}")).err();
            let error = error.unwrap();
            let mut text = error.to_string();
            if let Some(source) = std::error::Error::source(&error) {
                text += &format!(": {source} {:?}", std::error::Error::source(source));
            }
            assert!(text.contains(word) && !text.contains("secret"), "{text}");
        }
    }
}
