//! How commands end: 0 well, 1 the work failed, 2 the input or the set-up is wrong.

use std::process::ExitCode;

/// A message for the person, or nothing more to say.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The run failed; it has been said already.
    Run,
    /// Wrong input: already printed diagnostics.
    Input,
    /// Wrong input or set-up, to be printed.
    Message(String, Option<String>),
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self::Message(message.into(), None)
    }

    pub(crate) fn hint(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Message(message.into(), Some(hint.into()))
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Message(error.to_string(), None)
    }
}

pub(crate) fn exit(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Run) => ExitCode::from(1),
        Err(Failure::Input) => ExitCode::from(2),
        Err(Failure::Message(message, hint)) => {
            crate::out::tell!("error: {message}");
            if let Some(hint) = hint {
                crate::out::tell!("\nhint: {hint}");
            }
            ExitCode::from(2)
        }
    }
}
