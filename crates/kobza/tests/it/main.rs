//! The real binary, from outside: local runs, the server, kills at every stage, bad input.

mod bad_input;
mod docs;
mod kill;
mod machine;
mod server;
