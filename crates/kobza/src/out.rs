//! Data to the standard output, messages to the standard error. A reader that has gone (`kobza tasks
//! | head`) is no error of ours, where `println!` would panic.

use std::fmt::Arguments;
use std::io::Write as _;

pub(crate) fn data(text: Arguments<'_>) {
    // Nobody reads on: nothing is left to say.
    let _gone = writeln!(std::io::stdout(), "{text}");
}

pub(crate) fn message(text: Arguments<'_>) {
    let _gone = writeln!(std::io::stderr(), "{text}");
}

/// As `println!`.
macro_rules! show {
    ($($text:tt)*) => { $crate::out::data(format_args!($($text)*)) };
}

/// As `eprintln!`.
macro_rules! tell {
    ($($text:tt)*) => { $crate::out::message(format_args!($($text)*)) };
}

pub(crate) use {show, tell};
