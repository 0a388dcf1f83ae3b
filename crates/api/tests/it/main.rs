//! The API from outside: its description, and a listening server over a store of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod access;
mod openapi;
mod repeat;
mod world;
