//! `kobza doctor`: is everything here that runs need, and is the store sound?

use std::path::Path;

use kobza_store::{PostgresOptions, PostgresStore, SqliteOptions, SqliteStore, Store, Views};
use serde_json::json;

use crate::cli::{DoctorArgs, Output};
use crate::compose::self_exe;
use crate::config::Settings;
use crate::failure::Failure;

pub(crate) fn doctor(args: DoctorArgs) -> Result<(), Failure> {
    let settings = Settings::load(args.config.as_deref(), &args.flags.0)?;
    let mut checks = Checks::new();
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
    look_at_store(&settings, &mut checks)?;
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

type Checks = Vec<(String, bool, String)>;

/// The store that a server with these settings uses, left as it is.
fn look_at_store(settings: &Settings, checks: &mut Checks) -> Result<(), Failure> {
    let mut add = |name: &str, ok, text| checks.push((name.to_owned(), ok, text));
    let place = settings.text("store");
    if let Some(url) = place.filter(|at| at.starts_with("postgres")) {
        match PostgresStore::open_existing(url, PostgresOptions::default()) {
            Ok(store) => add("store", true, format!("PostgreSQL: {}", holds(&store)?)),
            Err(error) => add("store", false, error.to_string()),
        }
        return Ok(());
    }
    let folder = match place.and_then(|at| at.strip_prefix("sqlite:")) {
        Some(folder) => Path::new(folder),
        None => settings.data(),
    };
    if !folder.is_dir() {
        let text = format!("{} does not exist yet; the first run makes it", folder.display());
        add("store", true, text);
        return Ok(());
    }
    match SqliteStore::open_read_only(folder, SqliteOptions::default()) {
        Ok(store) => {
            let damage = store.integrity_check()?;
            let text = if damage.is_empty() { "sound".to_owned() } else { damage.join("; ") };
            add("integrity", damage.is_empty(), text);
            add("store", true, format!("{}: {}", folder.display(), holds(&store)?));
        }
        Err(error) => add("store", false, error.to_string()),
    }
    Ok(())
}

fn holds(store: &(impl Store + Views)) -> Result<String, Failure> {
    let totals = store.run_totals(&[])?;
    let sums: Vec<String> = totals.iter().map(|(state, n)| format!("{n} {state}")).collect();
    let runs = if sums.is_empty() { "none".to_owned() } else { sums.join(", ") };
    let events = store.fence()?.next_event.saturating_sub(1);
    Ok(format!("{events} events; runs: {runs}"))
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
