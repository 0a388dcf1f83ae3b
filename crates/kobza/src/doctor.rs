//! `kobza doctor`: is everything here that runs need, and is the store sound?

use kobza_store::{SqliteOptions, SqliteStore, Store as _, Views as _};
use serde_json::json;

use crate::cli::{DoctorArgs, Output};
use crate::compose::self_exe;
use crate::config::Settings;
use crate::failure::Failure;

pub(crate) fn doctor(args: DoctorArgs) -> Result<(), Failure> {
    let settings = Settings::load(args.config.as_deref(), &args.flags.0)?;
    let mut checks: Vec<(String, bool, String)> = Vec::new();
    checks.push((
        "binary".to_owned(),
        true,
        format!("kobza {} at {}", env!("CARGO_PKG_VERSION"), self_exe()?),
    ));
    for program in ["/bin/sh", "python3"] {
        let found = on_path(program);
        let text =
            found.clone().unwrap_or_else(|| "not found; tasks that need it will fail".to_owned());
        checks.push((program.to_owned(), found.is_some(), text));
    }
    let data = settings.data();
    if data.is_dir() {
        match SqliteStore::open_read_only(data, SqliteOptions::default()) {
            Ok(store) => {
                let totals = store.run_totals(&[])?;
                let sums: Vec<String> =
                    totals.iter().map(|(state, n)| format!("{n} {state}")).collect();
                let fence = store.fence()?;
                let damage = store.integrity_check()?;
                let text = if damage.is_empty() { "sound".to_owned() } else { damage.join("; ") };
                checks.push(("integrity".to_owned(), damage.is_empty(), text));
                checks.push((
                    "store".to_owned(),
                    true,
                    format!(
                        "{}: {} events; runs: {}",
                        data.display(),
                        fence.next_event.saturating_sub(1),
                        if sums.is_empty() { "none".to_owned() } else { sums.join(", ") }
                    ),
                ));
            }
            Err(error) => checks.push(("store".to_owned(), false, error.to_string())),
        }
    } else {
        checks.push((
            "store".to_owned(),
            true,
            format!("{} does not exist yet; the first run makes it", data.display()),
        ));
    }
    if args.output == Output::Json {
        let checks: Vec<_> = checks
            .iter()
            .map(|(name, ok, text)| json!({"name": name, "ok": ok, "text": text}))
            .collect();
        let rows = settings.shown();
        let rows: Vec<_> = rows
            .iter()
            .map(|(setting, value, source)| {
                json!({"key": setting.key, "value": value, "source": source.to_string()})
            })
            .collect();
        let all = json!({"checks": checks, "settings": rows, "file": settings.file});
        crate::out::show!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        for (name, ok, text) in &checks {
            crate::out::show!("{} {name:<10} {text}", if *ok { "ok " } else { "BAD" });
        }
        crate::out::show!("\nsettings");
        for (setting, value, source) in settings.shown() {
            let value = value.unwrap_or_else(|| "-".to_owned());
            crate::out::show!("  {:<13} {value:<24} {source}", setting.key);
        }
    }
    if checks.iter().all(|(_, ok, _)| *ok) { Ok(()) } else { Err(Failure::Run) }
}

fn on_path(program: &str) -> Option<String> {
    if program.starts_with('/') {
        return std::path::Path::new(program).is_file().then(|| program.to_owned());
    }
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
        .map(|path| path.display().to_string())
}
