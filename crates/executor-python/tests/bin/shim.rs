//! The shim as a program of its own, for tests.

use std::process::ExitCode;

use kobza_executor_process::shim_main_with;
use kobza_executor_python::Pool;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("shim") => shim_main_with(args, Some(Pool::make)),
        _ => ExitCode::from(2),
    }
}
