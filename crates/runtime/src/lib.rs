//! The one loop: inbox, engine, store commit, actions out.

mod ports;

pub use ports::{Dialect, Executor, ExecutorName, Facts, LaunchSpec, ReportSink};
