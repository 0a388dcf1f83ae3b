//! Sending by HTTP.

use std::time::Duration;

/// A whole exchange; a receiver that is slower is tried again.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) enum Failed {
    /// It may be taken later.
    Later(String),
    /// The receiver does not want it.
    Refused(String),
}

/// Posts JSON. Errors never show the address: it may hold a secret.
pub(crate) fn post(url: &str, headers: &[(&str, String)], body: &str) -> Result<(), Failed> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(TIMEOUT))
        .build()
        .into();
    let mut request = agent.post(url).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    match request.send(body) {
        Ok(response) => match response.status().as_u16() {
            200..=299 => Ok(()),
            status @ (408 | 425 | 429 | 500..=599) => {
                Err(Failed::Later(format!("the receiver answered {status}")))
            }
            status => Err(Failed::Refused(format!("the receiver answered {status}"))),
        },
        Err(ureq::Error::BadUri(_) | ureq::Error::Http(_)) => {
            Err(Failed::Refused("the address is not usable".to_owned()))
        }
        Err(ureq::Error::Timeout(_)) => Err(Failed::Later("no answer in time".to_owned())),
        Err(_) => Err(Failed::Later("the receiver cannot be reached".to_owned())),
    }
}
