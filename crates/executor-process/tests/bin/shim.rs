//! The shim and the built-in bodies as a program of their own, for tests.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("shim") => kobza_executor_process::shim_main(args),
        Some("exec") => match args.next().as_deref() {
            Some("sql") => kobza_executor_process::exec_sql_main(),
            Some("http") => kobza_executor_process::exec_http_main(),
            _ => ExitCode::from(2),
        },
        _ => ExitCode::from(2),
    }
}
