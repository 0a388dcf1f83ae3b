//! The native template language: Jinja, in three modes.
//!
//! *Text* renders as Jinja does. In *shell* and *SQL* a template's output never becomes part of
//! the program: a `{{ value }}` in a shell script turns into a quoted reference to an environment
//! variable that holds the value, in SQL into a bound parameter, so no value can change what the
//! script or the statement does. `| raw` inserts text as it is, by the author's choice.
//!
//! Rendering is bounded by fuel and knows no clock and no randomness: the same context gives the
//! same result. An undefined name is an error that says the name.

mod engine;
mod error;
mod filters;
mod references;
mod shell;
mod sql;
mod time;

pub use engine::{
    Context, MAX_RENDERED_BYTES, Mode, check, check_expression, eval, is_true, render_json,
    render_shell, render_sql, render_text, render_value,
};
pub use error::TemplateError;
pub use references::{References, TaskReferences};
pub use shell::{ShellText, quote as shell_quote};
pub use sql::SqlText;
