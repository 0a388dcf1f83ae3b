//! The real binary, from outside: local runs, the server, kills at every stage, bad input.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod access;
mod airflow_bad;
mod airflow_run;
mod airflow_schedules;
mod asks;
mod bad_input;
mod bad_triggers;
mod canary;
mod client;
mod clock;
mod cluster;
mod dashboard;
mod disk_full;
mod docs;
mod email;
mod example;
mod injection;
mod kill;
mod kinds;
mod machine;
mod outage;
mod outbound;
mod postgres_tls;
mod python;
mod routes;
mod secrets;
mod server;
mod settings;
mod sink;
mod standby;
mod task_token;
mod unknown_commit;
mod waits;
mod webhooks;
