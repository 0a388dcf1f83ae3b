//! `kobza server`: the loop and the API, until a signal.

use std::sync::Arc;
use std::time::Instant;

use kobza_api::{ApiParts, ApiState, Catalog as _, router};
use kobza_engine::Command;
use kobza_runtime::{Submission, wall_now};
use kobza_store::Write;

use crate::check;
use crate::cli::ServerArgs;
use crate::compose::{Dialects, Host, HostOptions};
use crate::failure::Failure;

pub(crate) fn server(args: ServerArgs) -> Result<(), Failure> {
    let started = Instant::now();
    let loopback = args.listen.ip().is_loopback();
    if !loopback && args.luigi_test_hooks {
        return Err(Failure::new("--luigi-test-hooks is refused on a public address"));
    }
    if !loopback && !args.data.is_dir() {
        // A store that does not exist has no users: nothing is made to find that out.
        return Err(Failure::hint(
            format!("{} is not a loopback address, and there are no users yet", args.listen),
            "start on 127.0.0.1, add a user, then listen elsewhere",
        ));
    }
    let outbound = args.outbound.as_deref().map(outbound).transpose()?;
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("KOBZA_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
        )
        .with_writer(std::io::stderr)
        .init();
    let tokio =
        tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build()?;
    let listener = tokio.block_on(tokio::net::TcpListener::bind(args.listen)).map_err(|e| {
        Failure::hint(
            format!("cannot listen on {}: {e}", args.listen),
            "another server may be there; --listen names another address",
        )
    })?;
    let address = listener.local_addr()?;
    let host = Host::start(HostOptions {
        data: args.data.clone(),
        slots: args.slots,
        base_folder: args.workflows.clone().map(std::fs::canonicalize).transpose()?,
        api_url: Some(format!("http://{address}")),
    })?;
    let accounts =
        kobza_api::accounts_exist(host.store.as_ref()).map_err(|e| Failure::new(e.to_string()))?;
    if !loopback && !accounts {
        host.stop()?;
        return Err(Failure::hint(
            format!("{} is not a loopback address, and there are no accounts", args.listen),
            "listen on 127.0.0.1, add a user (POST /api/v1/users) or a token, then listen here",
        ));
    }
    if let Some(folder) = &args.workflows {
        load(&host, folder)?;
    }
    if let Some(keep) = args.keep {
        crate::upkeep::retain(host.handle.clone(), host.store.clone(), host.logs.clone(), keep)?;
    }
    let triggers = kobza_triggers::service::start(kobza_triggers::service::TriggerOptions {
        runtime: host.handle.clone(),
        views: host.store.clone(),
        prepare: Arc::new(|workflow, given| {
            Dialects.params(workflow, given).map_err(|problems| {
                let texts: Vec<String> =
                    problems.iter().map(|p| format!("{}: {}", p.path, p.message)).collect();
                texts.join("; ")
            })
        }),
        clock: Arc::new(wall_now),
    })
    .map_err(|e| Failure::new(format!("triggers: {e}")))?;
    if let Some(config) = outbound {
        let (vault, store) = (host.vault.clone(), host.store.clone());
        let parts = kobza_outbound::Parts {
            handle: host.handle.clone(),
            store: host.store.clone(),
            views: host.store.clone(),
            lookup: Arc::new(move |kind, namespace, name| {
                vault.lookup(store.as_ref(), kind, namespace, name)
            }),
        };
        kobza_outbound::start(config, &parts)?;
    }
    let luigi = crate::luigi::router(
        host.handle.clone(),
        crate::luigi::config(args.luigi_config.as_deref())?,
        args.luigi_test_hooks,
    );
    let argo = crate::argo::router(&host);
    let state = ApiState::new(ApiParts {
        handle: host.handle.clone(),
        store: host.store.clone(),
        views: host.store.clone(),
        logs: host.logs.clone(),
        catalog: Arc::new(Dialects),
        started_at: wall_now(),
        hosts: if loopback { Vec::new() } else { vec!["*".to_owned()] },
        store_kind: "sqlite",
        vault: host.vault.clone(),
        triggers: Some(triggers.clone()),
        loopback,
    });
    let access = if accounts {
        "sign in, or use a token"
    } else {
        "everything is allowed to local users, there are no accounts"
    };
    tracing::info!(%address, data = %args.data.display(), took_ms = started.elapsed().as_millis(), "ready: {access}");
    let luigi = kobza_api::protect(luigi, &state, kobza_api::Role::Operator);
    let argo = kobza_api::protect(argo, &state, kobza_api::Role::Operator);
    let served = tokio.block_on(async {
        let app = axum::Router::new().nest("/luigi", luigi).nest("/argo", argo).merge(router(state));
        tokio::select! {
            served = async { axum::serve(listener, app).await } => served.map_err(Failure::from),
            () = signalled() => Ok(()),
            () = ended(&host) => Err(Failure::new("the loop has stopped: another server owns the store, or it is gone")),
        }
    });
    tracing::info!("stopping; tasks that run go on in their shim");
    tokio.block_on(triggers.stop());
    host.stop()?;
    served
}

fn outbound(file: &std::path::Path) -> Result<kobza_outbound::Config, Failure> {
    let named =
        |error: &dyn std::fmt::Display| Failure::new(format!("{}: {error}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|e| named(&e))?;
    kobza_outbound::Config::parse(&text).map_err(|e| named(&e))
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

/// Loads all workflow files of a folder. A file that does not parse is told and left out; the last
/// good version of its workflow stays in force.
fn load(host: &Host, folder: &std::path::Path) -> Result<(), Failure> {
    if !folder.is_dir() {
        return Err(Failure::new(format!("{} is not a folder", folder.display())));
    }
    let mut submission = Submission::default();
    let known = kobza_api::forget_faults(host.store.as_ref());
    submission.writes.extend(known.map_err(|e| Failure::new(e.to_string()))?);
    for file in check::files_in(folder)? {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if crate::argo::is_argo(text.as_bytes()) {
            match crate::argo::writes(&text, "default") {
                Ok(writes) => submission.writes.extend(writes),
                Err(error) => tracing::error!(file = %file.display(), "{error}"),
            }
            if !crate::argo::has_workflow(&text) {
                continue;
            }
        }
        match check::read(&file, None) {
            Ok((definition, source)) => {
                let namespace =
                    definition.namespace.clone().unwrap_or_else(|| "default".to_owned());
                for limit in definition.limits {
                    submission.commands.push(Command::SetLimit {
                        name: limit.name,
                        capacity: limit.capacity,
                        strict: limit.strict,
                        description: limit.description,
                    });
                }
                tracing::info!(workflow = definition.workflow.name, file = %file.display(), "loaded");
                submission.writes.push(Write::PutWorkflow {
                    namespace,
                    version: definition.workflow.content_hash()?,
                    workflow: Arc::new(definition.workflow),
                    source: Some(source),
                });
            }
            Err(problems) => {
                for problem in &problems {
                    tracing::error!("{}", check::show(problem));
                }
                let stem = file.file_stem().map(|s| s.to_string_lossy()).unwrap_or_default();
                let fault = kobza_api::fault_write(&stem, &text, &problems, wall_now());
                submission.writes.push(fault);
            }
        }
    }
    host.handle.submit_blocking(submission)?;
    Ok(())
}
