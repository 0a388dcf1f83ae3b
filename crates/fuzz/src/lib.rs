//! What hostile input reaches: a function for each parser, which must neither panic nor hang.
//!
//! `fuzz/` (cargo-fuzz, nightly) feeds them with what libFuzzer makes up; the test of this crate
//! feeds them, on stable, with the corpus that is kept in `fuzz/corpus`. Input that once broke
//! something belongs there.

mod languages;
mod times;
mod wires;

/// A parser under its name, which is also that of its corpus and of its binary in `fuzz/`.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("native_yaml", languages::native_yaml),
    ("native_template", languages::native_template),
    ("argo_yaml", languages::argo_yaml),
    ("argo_substitution", languages::argo_substitution),
    ("expr_lang", languages::expr_lang),
    ("govaluate", languages::govaluate),
    ("airflow_dag", languages::airflow_dag),
    ("cron", times::cron),
    ("rrule", times::rrule),
    ("duration", times::duration),
    ("partitions", times::partitions),
    ("triggers", times::triggers),
    ("airflow_timetable", times::airflow_timetable),
    ("luigi_call", wires::luigi_call),
    ("airflow_msgpack", wires::airflow_msgpack),
    ("shim_frames", wires::shim_frames),
    ("log_line", wires::log_line),
    ("archive", wires::archive),
];

/// Runs the target of this name; for the binaries of `fuzz/`.
///
/// # Panics
/// If there is no such target, or it fails.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(own, _)| *own == name);
    let (_, target) = target.unwrap_or_else(|| panic!("there is no target {name}"));
    target(bytes);
}

/// Text of the input; what is not UTF-8 is not what these parsers get.
fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}
