//! `kobza server`: the loop and the API, until a signal.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use kobza_api::{ApiParts, ApiState, Catalog as _, Role, router};
use kobza_dialect_airflow::schedule::{CustomTimetables, DagTimetables};
use kobza_dialect_airflow::slots::DagStarter;
use kobza_runtime::{Submission, wall_now};
use kobza_store::{PostgresOptions, PostgresStore, SqliteOptions, SqliteStore, Write, kinds};
use kobza_triggers::service::Starter;

use crate::airflow_setup::Airflow;
use crate::cli::ServerArgs;
use crate::compose::{Database, Dialects, Host, HostOptions, log_store, open_folder};
use crate::config::Settings;
use crate::failure::Failure;
use crate::standby::{self, Front, Owner};
use crate::watch::Folder;

/// Threads that may wait for a disk or a database.
const MAX_BLOCKING: usize = 64;

pub(crate) fn server(args: ServerArgs) -> Result<(), Failure> {
    let started = Instant::now();
    let settings = Settings::load(args.config.as_deref(), &args.flags.0)?;
    let (listen, data) = (settings.listen(), settings.data());
    let loopback = listen.ip().is_loopback();
    if !loopback && args.luigi_test_hooks {
        return Err(Failure::new("--luigi-test-hooks is refused on a public address"));
    }
    if !loopback && !data.is_dir() {
        // A store that does not exist has no users: nothing is made to find that out.
        return Err(Failure::hint(
            format!("{listen} is not a loopback address, and there are no users yet"),
            "start on 127.0.0.1, add a user, then listen elsewhere",
        ));
    }
    let workflows = settings.path("workflows").map(std::fs::canonicalize).transpose();
    let workflows = workflows.map_err(|e| Failure::new(format!("workflows: {e}")))?;
    start_log(&settings)?;
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        // Many callers at once wait for few threads, rather than each having one of its own.
        .max_blocking_threads(MAX_BLOCKING)
        .build()?;
    let listener = tokio.block_on(tokio::net::TcpListener::bind(listen)).map_err(|e| {
        Failure::hint(
            format!("cannot listen on {listen}: {e}"),
            "another server may be there; --listen names another address",
        )
    })?;
    let address = listener.local_addr()?;
    let argo_listener = match settings.address("argo.listen") {
        None => None,
        Some(own) if !own.ip().is_loopback() && loopback => {
            return Err(Failure::hint(
                format!("argo.listen: {own} is not a loopback address, and `listen` is one"),
                "listen on a public address first: that is refused until there is an account",
            ));
        }
        Some(own) => {
            let bound = tokio.block_on(tokio::net::TcpListener::bind(own));
            Some(bound.map_err(|e| Failure::new(format!("cannot listen on {own}: {e}")))?)
        }
    };
    let (stop, stopping) = tokio::sync::watch::channel(false);
    tokio.spawn(async move {
        signalled().await;
        // Nobody waits for it any more: the server ends already.
        let _gone = stop.send(true);
    });
    let (store, shared) = open_store(&settings)?;
    if let Some(address) = settings.text("artifacts") {
        crate::artifacts::keep_in(data, address)?;
    }
    let owner = format!(
        "kobza at http://{address} on {}, process {}, {}",
        host_name(),
        std::process::id(),
        uuid::Uuid::new_v4().simple()
    );
    let front = Front::default();
    let mut listener = Some(listener);
    let mut serve = |front: &Front| {
        if let Some(listener) = listener.take() {
            let app = front.service();
            tokio.spawn(async move {
                if let Err(error) = axum::serve(listener, app).await {
                    tracing::error!(%error, "the listener failed");
                }
            });
        }
    };
    if shared {
        check_place(store.as_ref(), data, args.take_over)?;
        let active = Owner::default();
        front.show(standby::guard(shown(&store, &settings)?, &active));
        serve(&front);
        let stopped = |pause| {
            let mut stopping = stopping.clone();
            let told = async { tokio::time::timeout(pause, stopping.wait_for(|s| *s)).await };
            tokio.block_on(told).is_ok()
        };
        if !standby::wait(store.as_ref(), &owner, &active, stopped) {
            drop(tokio);
            return Ok(());
        }
        // The last word: another may have changed it meanwhile.
        check_place(store.as_ref(), data, args.take_over)?;
    }
    let host = Host::start_on(
        store.clone(),
        owner,
        HostOptions {
            data: data.to_owned(),
            slots: settings.slots(),
            base_folder: workflows.clone(),
            api_url: Some(format!("http://{address}")),
            values_from_environment: false,
            images: crate::argo::images(settings.list("argo.images"))?,
        },
    )?;
    let accounts =
        kobza_api::accounts_exist(host.store.as_ref()).map_err(|e| Failure::new(e.to_string()))?;
    if !loopback && !accounts {
        host.stop()?;
        return Err(Failure::hint(
            format!("{listen} is not a loopback address, and there are no accounts"),
            "listen on 127.0.0.1, add a user (POST /api/v1/users) or a token, then listen here",
        ));
    }
    renew_secrets(&host)?;
    let files = workflows
        .map(|folder| {
            let seal = crate::argo::sealing(host.vault.clone());
            Folder::load(&folder, host.handle.clone(), host.store.clone(), seal)
        })
        .transpose()?;
    let keep = settings.duration("keep");
    let (handle, views, logs) = (host.handle.clone(), host.store.clone(), host.logs.clone());
    crate::upkeep::retain(handle, views, logs, data.to_path_buf(), keep)?;
    let argo = crate::argo::state(&host, data);
    argo.start_upkeep()?;
    argo.start_metrics()?;
    let airflow = Airflow::of(&settings, &host)?;
    let parser = airflow.as_ref().map(|airflow| airflow.parser.clone());
    let custom: Option<Arc<dyn CustomTimetables>> = parser.clone().map(|parser| parser as _);
    let triggers = kobza_triggers::service::start(kobza_triggers::service::TriggerOptions {
        runtime: host.handle.clone(),
        views: host.store.clone(),
        prepare: Arc::new(|workflow, given| {
            Dialects::default().params(workflow, given).map_err(|problems| {
                let texts: Vec<String> =
                    problems.iter().map(|p| format!("{}: {}", p.path, p.message)).collect();
                texts.join("; ")
            })
        }),
        starters: BTreeMap::from([
            ("argo", Arc::new(crate::argo::CronStarter(argo.clone())) as Arc<dyn Starter>),
            ("airflow", Arc::new(DagStarter(host.desk.clone()))),
        ]),
        timetables: BTreeMap::from([(
            "airflow".to_owned(),
            Arc::new(DagTimetables::new(custom.clone())) as Arc<dyn kobza_triggers::Timetables>,
        )]),
        clock: Arc::new(wall_now),
    })
    .map_err(|e| Failure::new(format!("triggers: {e}")))?;
    if let Some(files) = files {
        files.watch(triggers.clone(), tokio.handle().clone())?;
    }
    if let Some(parser) = airflow {
        crate::airflow::start(&host, parser, triggers.clone(), tokio.handle().clone())?;
    }
    {
        let (vault, store) = (host.vault.clone(), host.store.clone());
        let parts = kobza_outbound::Parts {
            handle: host.handle.clone(),
            store: host.store.clone(),
            views: host.store.clone(),
            lookup: Arc::new(move |kind, namespace, name| {
                vault.lookup(store.as_ref(), kind, namespace, name)
            }),
        };
        kobza_outbound::start(settings.outbound.clone(), &parts)?;
    }
    let luigi = crate::luigi::router(
        host.handle.clone(),
        crate::luigi::config(settings.path("luigi.config"))?,
        args.luigi_test_hooks,
    );
    let argo = kobza_dialect_argo::rest::router(kobza_dialect_argo::rest::ArgoState {
        schedules: Some(Arc::new(crate::argo::CronSchedules(triggers.clone()))),
        ..argo
    });
    let state = ApiState::new(ApiParts {
        handle: host.handle.clone(),
        store: host.store.clone(),
        views: host.store.clone(),
        logs: host.logs.clone(),
        artifacts: crate::compose::artifact_store(data)?,
        catalog: Arc::new(Dialects { timetables: custom }),
        started_at: wall_now(),
        hosts: hosts(&settings),
        store_kind: if shared { "postgres" } else { "sqlite" },
        vault: host.vault.clone(),
        triggers: Some(triggers.clone()),
        loopback,
        backup: backup_of(&settings),
    });
    let airflow = crate::airflow_rest::router(&host, &state, &triggers);
    let access = if accounts {
        "sign in, or use a token"
    } else {
        "everything is allowed to local users, there are no accounts"
    };
    tracing::info!(%address, data = %data.display(), took_ms = started.elapsed().as_millis(), "ready: {access}");
    let luigi = kobza_api::protect(luigi, &state, Role::Operator, Role::Operator);
    let argo = kobza_api::protect(argo, &state, Role::Viewer, Role::Operator);
    let argo = crate::accounts::any_token_without(argo, host.store.clone());
    let argo = crate::argo::with_errors(argo);
    if let Some(listener) = argo_listener {
        let app = argo.clone();
        tokio.spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                tracing::error!(%error, "the listener of Argo's API failed");
            }
        });
    }
    if shared {
        let place = Write::PutObject {
            kind: kinds::SETTING,
            namespace: String::new(),
            key: PLACE.to_owned(),
            value: Some(place(data)?.into()),
        };
        host.handle.submit_blocking(Submission { commands: Vec::new(), writes: vec![place] })?;
    }
    front.show(
        axum::Router::new()
            .nest("/luigi", luigi)
            .nest("/argo", argo)
            .nest(crate::airflow_rest::PLACE, airflow)
            .merge(router(state)),
    );
    serve(&front);
    let mut stopping = stopping;
    let served = tokio.block_on(async {
        tokio::select! {
            _ = stopping.wait_for(|s| *s) => Ok(()),
            () = ended(&host) => Err(Failure::new("the loop has stopped: another server owns the store, or it is gone")),
        }
    });
    tracing::info!("stopping; tasks that run go on in their shim");
    tokio.block_on(triggers.stop());
    if let Some(parser) = parser {
        parser.stop();
    }
    let stopped = host.stop();
    // Connections to a database are closed here, not by a task of the runtime.
    drop(tokio);
    drop(store);
    served.and(stopped)
}

/// The object that says where the tasks of a shared store run.
const PLACE: &str = "place";

/// This machine and data folder: what its shims hold can be reached from nowhere else.
fn place(data: &Path) -> Result<String, Failure> {
    let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_else(|_| host_name());
    Ok(format!("{}:{}", machine.trim(), std::fs::canonicalize(data)?.display()))
}

/// Refuses a store with live runs whose tasks may run where this server cannot see them: they
/// would run twice.
fn check_place(store: &dyn Database, data: &Path, take_over: bool) -> Result<(), Failure> {
    let own = place(data)?;
    let found = store.object(kinds::SETTING, "", PLACE)?;
    let other = found.as_ref().and_then(|v| v.as_str()).filter(|p| *p != own);
    match other {
        Some(other) if !take_over && !store.active_runs()?.is_empty() => Err(Failure::hint(
            format!("tasks of this store may run under {other}, out of this server's reach"),
            "start it there, with the same --data; or, when that machine is certainly off, give \
             --take-over",
        )),
        _ => Ok(()),
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// The store, and whether servers share it by a lease.
fn open_store(settings: &Settings) -> Result<(Arc<dyn Database>, bool), Failure> {
    let data = settings.data();
    match settings.text("store") {
        None => Ok((open_folder(data)?, false)),
        Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
            use std::os::unix::fs::DirBuilderExt as _;
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data)?;
            Ok((Arc::new(PostgresStore::open(url, PostgresOptions::default())?), true))
        }
        Some(other) => match other.strip_prefix("sqlite:") {
            Some(folder) if !folder.is_empty() => {
                Ok((open_folder(std::path::Path::new(folder))?, false))
            }
            // The text itself may hold a password.
            _ => Err(Failure::hint(
                "--store names no store that is known",
                "write postgres://user@host/database?schema=name or sqlite:FOLDER",
            )),
        },
    }
}

/// Copies of an embedded store, made beside it and given away as files without a name.
fn backup_of(settings: &Settings) -> Option<Arc<kobza_api::MakeBackup>> {
    let folder = match settings.text("store") {
        None => settings.data().to_owned(),
        Some(url) => std::path::PathBuf::from(url.strip_prefix("sqlite:")?),
    };
    Some(Arc::new(move || {
        let copy = folder.join(format!("backup-{}.tmp", uuid::Uuid::new_v4().simple()));
        let store = SqliteStore::open_read_only(&folder, SqliteOptions::default())
            .map_err(|e| e.to_string())?;
        let made = store.backup(&copy).map_err(|e| e.to_string()).and_then(|bytes| {
            std::fs::File::open(&copy).map(|file| (file, bytes)).map_err(|e| e.to_string())
        });
        // What is open stays until it is closed.
        let _not_there = std::fs::remove_file(&copy);
        made
    }))
}

/// The API over the store alone: without a loop every command is refused.
fn shown(store: &Arc<dyn Database>, settings: &Settings) -> Result<axum::Router, Failure> {
    let data = settings.data();
    let (handle, inbox) = kobza_runtime::channel();
    drop(inbox);
    let vault = kobza_api::Vault::open(data).map_err(|e| Failure::new(e.to_string()))?;
    Ok(router(ApiState::new(ApiParts {
        handle,
        store: store.clone(),
        views: store.clone(),
        logs: log_store(data),
        artifacts: crate::compose::artifact_store(data)?,
        catalog: Arc::new(Dialects::default()),
        started_at: wall_now(),
        hosts: hosts(settings),
        store_kind: "postgres",
        vault: Arc::new(vault),
        triggers: None,
        loopback: settings.listen().ip().is_loopback(),
        backup: None,
    })))
}

/// Puts secrets under the current key, where there is an older one.
fn renew_secrets(host: &Host) -> Result<(), Failure> {
    let writes =
        host.vault.renew(host.store.as_ref()).map_err(|e| Failure::new(format!("secrets: {e}")))?;
    if !writes.is_empty() {
        let count = writes.len();
        host.handle.submit_blocking(Submission { commands: Vec::new(), writes })?;
        tracing::info!(count, "secrets are under the new key: the old one is not needed any more");
    }
    Ok(())
}

/// Names under which the server may be addressed, beside loopback's and IP addresses.
fn hosts(settings: &Settings) -> Vec<String> {
    let given = settings.list("hosts").iter().cloned();
    let own = (!settings.listen().ip().is_loopback()).then(host_name);
    given.chain(own.filter(|name| !name.is_empty())).collect()
}

fn start_log(settings: &Settings) -> Result<(), Failure> {
    let filter = settings.text("log.filter").unwrap_or("info");
    let filter = tracing_subscriber::EnvFilter::try_new(filter).map_err(|e| {
        Failure::hint(format!("log.filter: {e}"), "write such as info or kobza_runtime=debug")
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match settings.text("log.format") {
        Some("json") => log.json().init(),
        _ => log.init(),
    }
    Ok(())
}

async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {},
        _ = int.recv() => {},
    }
}

/// Resolves when the loop ends by itself.
async fn ended(host: &Host) {
    let mut next = host.handle.next_event();
    // The sender lives in the loop: it closes when the loop ends.
    while next.changed().await.is_ok() {}
    while !host.has_ended() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
