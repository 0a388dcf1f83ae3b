//! What executors get to run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kobza_engine::Launch;
use kobza_expr::native::{self, Context, TemplateError};
use kobza_model::{Json, TemplateBody, Timestamp};
use kobza_runtime::{ExecutorName, Facts, LaunchSpec, Poll};
use serde::Deserialize as _;
use serde_json::{Map, json};

use crate::context::{Gathered, Place, collect_texts, gather, hide, mask_worthy, secrets_of};
use crate::dialect::Options;
use crate::spec::{Body, LeafSpec, Shared, Wait};

/// The program that calls Python functions.
const DRIVER: &str = include_str!("driver.py");

/// Largest environment variable that Linux hands to a process, name and sign included.
const MAX_VARIABLE_BYTES: usize = 128 * 1024 - 1;

pub(crate) fn launch(
    options: &Options,
    launch: &Launch,
    facts: &dyn Facts,
) -> Result<(ExecutorName, LaunchSpec), String> {
    let workflow = facts.workflow();
    let template = workflow
        .templates
        .get(launch.template.index())
        .ok_or("the definition has no such template")?;
    let TemplateBody::Leaf(leaf) = &template.body else {
        return Err("a graph is not launched".to_owned());
    };
    let spec = match &leaf.spec {
        Json::Null => LeafSpec::default(),
        spec => LeafSpec::deserialize(spec).map_err(|e| e.to_string())?,
    };
    if let Some(added) = added(facts, launch) {
        return launch_added(options, launch, facts, (&spec.body, &added));
    }
    let place = Place { task: launch.id.task, scope: launch.scope, index: launch.index };
    let Gathered { context, mut secrets } = gather(place, launch.attempt, &spec.reads, facts)?;
    let base = base_folder(options, facts);
    let mut out = LaunchSpec {
        env: environment(options, launch, facts),
        folder: folder(&spec, base.as_deref(), &context)?,
        user: spec.user.clone(),
        umask: spec.umask,
        timeout_ms: launch.timeout_ms,
        grace_ms: spec.grace_ms,
        memory_bytes: spec.memory_bytes,
        cpu_seconds: spec.cpu_seconds,
        log_bytes: spec.log_bytes,
        output_bytes: spec.output_bytes,
        skip_exit_codes: spec.skip_exit_codes.clone(),
        capture_result: spec.capture,
        ..LaunchSpec::default()
    };
    for (name, value) in &spec.env {
        let value =
            native::render_text(value, &context).map_err(in_field(&format!("env.{name}")))?;
        out.env.push((name.clone(), value));
    }
    let executor = body(
        options,
        launch,
        &spec.body,
        &context,
        base.as_deref(),
        facts,
        &mut out,
        &mut secrets,
    )?;
    for (name, value) in &out.env {
        if value.contains('\0') {
            return Err(format!("env.{name}: the value contains a NUL character"));
        }
        if name.len() + value.len() > MAX_VARIABLE_BYTES {
            return Err(format!("env.{name}: {} bytes are too many for a variable", value.len()));
        }
    }
    secrets.extend(token(&out));
    mask_worthy(&mut secrets);
    out.secrets = secrets;
    Ok((executor, out))
}

/// What a running task said of a task that it added.
fn added(facts: &dyn Facts, launch: &Launch) -> Option<Json> {
    let row = facts.task(launch.id.task).filter(|_| launch.node.is_none())?;
    row.extra.get("python").cloned()
}

/// A Python function with its arguments as they are: nothing of it is a template. It runs in the
/// environment of the task that added it.
fn launch_added(
    options: &Options,
    launch: &Launch,
    facts: &dyn Facts,
    (adder, added): (&Body, &Json),
) -> Result<(ExecutorName, LaunchSpec), String> {
    let mut python = added.as_object().cloned().ok_or("an added task is a Python function")?;
    let row = facts.task(launch.id.task).ok_or("the task is gone")?;
    let base = base_folder(options, facts);
    if let Body::Python { interpreter, venv, requirements, .. } = adder {
        let place = |name: &String| resolve(base.as_deref(), name);
        let program =
            interpreter.as_ref().map(|p| if p.contains('/') { place(p) } else { p.clone() });
        let listed = requirements.as_ref().map(|listed| match listed {
            Json::String(file) => json!(place(file)),
            other => other.clone(),
        });
        for (name, value) in [
            ("interpreter", json!(program)),
            ("venv", json!(venv.as_ref().map(place))),
            ("requirements", json!(listed)),
        ] {
            if !value.is_null() {
                python.insert(name.to_owned(), value);
            }
        }
    }
    let base = base.map(|base| base.display().to_string());
    let mut path: Vec<Json> =
        python.get("path").and_then(Json::as_array).cloned().unwrap_or_default();
    path.extend(base.clone().map(Json::from));
    python.insert("path".to_owned(), Json::from(path));
    python.insert("args".to_owned(), row.inputs);
    python.insert("context".to_owned(), python_context(launch, facts));
    if let Some(fallback) = &options.python {
        python.insert("fallback".to_owned(), json!(fallback));
    }
    let mut spec = LaunchSpec {
        env: environment(options, launch, facts),
        folder: base,
        extra: json!({ "python": python }),
        ..LaunchSpec::default()
    };
    spec.secrets.extend(token(&spec));
    Ok(("process", spec))
}

fn in_field(field: &str) -> impl Fn(TemplateError) -> String + use<'_> {
    move |error| format!("{field}: {error}")
}

#[expect(clippy::too_many_arguments, reason = "all that a body may look at")]
fn body(
    options: &Options,
    launch: &Launch,
    body: &Body,
    context: &Context,
    base: Option<&Path>,
    facts: &dyn Facts,
    out: &mut LaunchSpec,
    secrets: &mut Vec<String>,
) -> Result<ExecutorName, String> {
    match body {
        Body::Noop => {
            out.program = "/bin/true".to_owned();
        }
        Body::Shell { command, shell } => {
            let text = native::render_shell(command, context).map_err(in_field("shell"))?;
            out.program = shell.clone();
            out.args = vec!["-e".to_owned(), "-c".to_owned(), text.script];
            out.env.extend(text.env);
        }
        Body::Python {
            function,
            file,
            code,
            interpreter,
            venv,
            path,
            requirements,
            mode,
            with,
            check,
        } => {
            let with = native::render_json(with, context).map_err(in_field("with"))?;
            let mut folders: Vec<String> =
                path.iter().map(|folder| resolve(base, folder)).collect();
            if let Some(folder) = &out.folder
                && !folders.contains(folder)
            {
                folders.push(folder.clone());
            }
            if let Some(base) = base.map(|b| b.display().to_string())
                && !folders.contains(&base)
            {
                folders.push(base);
            }
            out.program = match (interpreter, venv) {
                (Some(program), _) if program.contains('/') => resolve(base, program),
                (Some(program), _) => program.clone(),
                (None, Some(venv)) => format!("{}/bin/python", resolve(base, venv)),
                (None, None) => options.python.clone().unwrap_or_else(|| "python3".to_owned()),
            };
            let warm = options.warm_python && function.is_some();
            // -u: a log line appears when it is printed, not when a buffer is full.
            out.args = vec!["-u".to_owned(), "-c".to_owned(), DRIVER.to_owned()];
            let call = json!({
                "function": function,
                "file": file.as_ref().map(|file| resolve(base, file)),
                "code": code, "path": folders, "with": with, "check": check,
            });
            out.stdin = Some(call.to_string());
            if warm {
                // What follows says it all, and each launch is sent and read.
                (out.args, out.stdin) = (Vec::new(), None);
            }
            if let Some(function) = function {
                let chosen = interpreter.is_some() || venv.is_some();
                // Lists name packages; a text is a file.
                let requirements = match requirements {
                    Some(Json::String(file)) => Some(json!(resolve(base, file))),
                    other => other.clone(),
                };
                let mut python = json!({
                    "function": function, "path": call["path"], "args": call["with"],
                    "mode": mode.as_deref().unwrap_or("fork"),
                    "check": check, "context": python_context(launch, facts),
                });
                for (name, value) in [
                    ("file", call["file"].clone()),
                    ("requirements", json!(requirements)),
                    ("interpreter", json!(chosen.then_some(&out.program))),
                    ("fallback", json!(options.python)),
                ] {
                    if !value.is_null() {
                        python[name] = value;
                    }
                }
                // Where no warm Python is hosted, the program above does the same more slowly.
                out.extra = json!({ "python": python });
            }
        }
        Body::Sql { statement, connection, expect, max_rows } => {
            let text = native::render_sql(statement, context).map_err(in_field("sql"))?;
            let (url, options_of) = find_connection(connection, base, facts, secrets)?;
            let mut call = json!({
                "url": url, "statement": text.statement, "params": text.params,
            });
            if let Some(expect) = expect {
                call["expect"] =
                    native::render_json(expect, context).map_err(in_field("expect"))?;
            }
            if let Some(rows) = max_rows {
                call["max_rows"] = json!(rows);
            }
            if let Some(seconds) = options_of.get("busy_timeout_s") {
                call["busy_timeout_s"] = seconds.clone();
            }
            builtin(options, "sql", &call, out);
        }
        Body::Http { url, method, headers, query, json: value, body, expect, timeout_ms } => {
            let request = (url.as_str(), method.as_str(), headers.as_slice(), query.as_slice());
            let mut call = http(request, value.as_ref(), body.as_ref(), context)?;
            if !expect.is_empty() {
                call["expect"] = json!(expect);
            }
            if let Some(ms) = timeout_ms {
                call["timeout_s"] = json!(Duration::from_millis(*ms).as_secs_f64());
            }
            builtin(options, "http", &call, out);
        }
        Body::Suspend { message, approvers, inputs, approval } => {
            let message = message
                .as_ref()
                .map(|m| native::render_text(m, context).map_err(in_field("message")))
                .transpose()?;
            out.extra = json!({
                "message": message, "approvers": approvers, "inputs": inputs, "approval": approval,
            });
            return Ok("suspend");
        }
        Body::Wait(Wait::Poll { body: probe, every_ms }) => {
            let text = |t: &str| native::render_text(t, context).map_err(in_field("wait"));
            let waits_for = match probe.as_ref() {
                // Addresses and statements may hold what is secret: their hosts and names do not.
                Body::Http { url, .. } => format!("an answer of {}", shown_url(&text(url)?)),
                Body::Sql { connection, .. } => format!("a result of {connection}"),
                _ => return Err("this wait has nothing to look at".to_owned()),
            };
            let executor = self::body(options, launch, probe, context, base, facts, out, secrets)?;
            let deadline = match launch.carry["deadline"].as_i64() {
                Some(at) => Some(Timestamp(at)),
                None => launch.timeout_ms.map(|ms| later(facts.now(), ms)),
            };
            out.poll = Some(Poll {
                exit_codes: NOT_YET.to_vec(),
                every_ms: *every_ms,
                deadline,
                carry: json!({"deadline": deadline.map(|at| at.0), "waits_for": waits_for}),
            });
            return Ok(executor);
        }
        Body::Wait(wait) => {
            let text = |t: &str| native::render_text(t, context).map_err(in_field("wait"));
            let some = |t: &Option<String>| t.as_deref().map(text).transpose();
            out.extra = match wait {
                Wait::For { ms } => json!({"for_ms": ms}),
                Wait::Until { time } => json!({"until": text(time)?}),
                Wait::File { path, every_ms } => {
                    json!({"file": resolve(base, &text(path)?), "every_ms": every_ms})
                }
                Wait::Event { name, filter } => json!({"event": name, "filter": filter}),
                Wait::Asset { name, partition, since } => json!({
                    "asset": text(name)?, "partition": some(partition)?, "since": some(since)?,
                }),
                Wait::Poll { .. } => Json::Null,
            };
            out.extra["namespace"] = json!(facts.run().namespace);
            out.extra["carry"] = launch.carry.clone();
            return Ok("wait");
        }
        Body::Workflow { name, namespace, wait, with } => {
            let params = native::render_json(with, context).map_err(in_field("with"))?;
            let namespace = namespace.as_ref().unwrap_or(&facts.run().namespace);
            out.extra = json!({
                "workflow": name, "namespace": namespace, "wait": wait, "params": params,
                "attempt": launch.attempt,
            });
            return Ok("workflow");
        }
    }
    Ok("process")
}

/// How the built-in bodies end that saw something else than expected, or reached nobody.
const NOT_YET: [i32; 2] = [3, 4];

fn later(at: Timestamp, ms: u64) -> Timestamp {
    at.saturating_add_micros(i64::try_from(ms.saturating_mul(1000)).unwrap_or(i64::MAX))
}

/// The host of an address.
fn shown_url(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}")
}

/// A hidden subcommand of this binary (found by the executor where the options do not name it), its
/// call on the standard input: a command line can be read by everyone on the machine.
fn builtin(options: &Options, what: &str, call: &Json, out: &mut LaunchSpec) {
    if options.self_exe.is_empty() {
        out.program = format!("@{what}");
    } else {
        out.program = options.self_exe.clone();
        out.args = vec!["exec".to_owned(), what.to_owned()];
    }
    out.stdin = Some(call.to_string());
}

type Request<'a> = (&'a str, &'a str, &'a [(String, String)], &'a [(String, String)]);

fn http(
    (url, method, headers, query): Request<'_>,
    value: Option<&Json>,
    body: Option<&String>,
    context: &Context,
) -> Result<Json, String> {
    let pairs = |list: &[(String, String)], field: &str| {
        list.iter()
            .map(|(name, value)| {
                let value = native::render_text(value, context).map_err(in_field(field))?;
                if value.contains(['\r', '\n', '\0']) && field == "headers" {
                    return Err(format!("headers.{name}: a header has one line"));
                }
                Ok((name.clone(), json!(value)))
            })
            .collect::<Result<Map<String, Json>, String>>()
    };
    let mut call = json!({
        "url": native::render_text(url, context).map_err(in_field("url"))?,
        "method": method,
        "headers": pairs(headers, "headers")?,
        "query": pairs(query, "query")?,
    });
    if let Some(value) = value {
        call["json"] = native::render_json(value, context).map_err(in_field("json"))?;
    }
    if let Some(body) = body {
        call["body"] = json!(native::render_text(body, context).map_err(in_field("body"))?);
    }
    Ok(call)
}

/// Address and options of a connection: the workflow's, else the namespace's. Relative SQLite files
/// count from the base folder.
fn find_connection(
    name: &str,
    base: Option<&Path>,
    facts: &dyn Facts,
    secrets: &mut Vec<String>,
) -> Result<(String, Json), String> {
    let workflow = facts.workflow();
    let shared = Shared::deserialize(&workflow.source).map_err(|e| e.to_string())?;
    let connection = match shared.connections.get(name) {
        Some(declared) => {
            let mut reads = crate::spec::Reads::default();
            let mut all = Vec::new();
            collect_texts(declared, &mut all);
            for text in &all {
                if let Ok(references) = native::check(text, native::Mode::Text) {
                    let first = |n: &str| n.split('.').next().unwrap_or("").to_owned();
                    reads.variables.extend(references.below("var").map(first));
                    reads.secrets.extend(references.below("secret").map(first));
                }
            }
            let (values, found) = shared_values(&reads, facts);
            secrets.extend(found);
            native::render_json(declared, &values)
                .map_err(|e| format!("connections.{name}: {e}"))?
        }
        None => facts
            .lookup("connection", name)
            .map(|found| Json::clone(&found))
            .ok_or_else(|| format!("there is no connection `{name}`"))?,
    };
    hide(&connection, secrets);
    let url = connection
        .get("url")
        .and_then(Json::as_str)
        .ok_or_else(|| format!("the connection `{name}` has no url"))?;
    let options = connection.get("options").cloned().unwrap_or(Json::Null);
    Ok((local_url(url, base), options))
}

/// An SQLite address with its path made absolute; others are left alone.
fn local_url(url: &str, base: Option<&Path>) -> String {
    let Some(rest) = url.strip_prefix("sqlite:") else { return url.to_owned() };
    let path = rest.strip_prefix("//").unwrap_or(rest);
    if path.is_empty() || path.starts_with(":memory:") {
        return url.to_owned();
    }
    // Two slashes at the beginning of what comes out would be read as those of an address.
    let resolved = resolve(base, path);
    let plain = resolved.trim_start_matches('/');
    let root = if plain.len() < resolved.len() { "/" } else { "" };
    format!("sqlite:{root}{plain}")
}

fn shared_values(reads: &crate::spec::Reads, facts: &dyn Facts) -> (Context, Vec<String>) {
    let mut values = Map::new();
    let mut secrets = Vec::new();
    values.insert("params".to_owned(), facts.run().params.clone());
    for (word, kind, names) in
        [("var", "variable", &reads.variables), ("secret", "secret", &reads.secrets)]
    {
        let mut found = Map::new();
        for name in names {
            if let Some(value) = facts.lookup(kind, name) {
                secrets.extend(secrets_of(kind, name, &value, facts));
                found.insert(name.clone(), Json::clone(&value));
            }
        }
        values.insert(word.to_owned(), Json::Object(found));
    }
    (Context::new(&values), secrets)
}

fn base_folder(options: &Options, facts: &dyn Facts) -> Option<PathBuf> {
    let own = facts.run().extra.get("folder").and_then(Json::as_str).map(PathBuf::from);
    own.or_else(|| options.base_folder.clone())
}

fn resolve(base: Option<&Path>, path: &str) -> String {
    match base {
        Some(base) if !Path::new(path).is_absolute() => base.join(path).display().to_string(),
        _ => path.to_owned(),
    }
}

fn folder(
    spec: &LeafSpec,
    base: Option<&Path>,
    context: &Context,
) -> Result<Option<String>, String> {
    match &spec.folder {
        Some(folder) => {
            let folder = native::render_text(folder, context).map_err(in_field("folder"))?;
            Ok(Some(resolve(base, &folder)))
        }
        None => Ok(base.map(|base| base.display().to_string())),
    }
}

/// What a Python task may know of its run.
fn python_context(launch: &Launch, facts: &dyn Facts) -> Json {
    let run = facts.run();
    let name = facts.task(launch.id.task).map(|row| row.name);
    let interval = run.interval_start.zip(run.interval_end);
    json!({
        "run_id": run.run.to_string(), "namespace": run.namespace, "workflow": run.workflow,
        "task": name, "map_index": launch.index, "attempt": launch.attempt, "params": run.params,
        "interval": interval.map(|(start, end)| {
            json!({"start": start.to_string(), "end": end.to_string()})
        }),
        "partition": run.partition,
    })
}

/// With it a task asks the API, about its own run only.
const TOKEN_VARIABLE: &str = "KOBZA_API_TOKEN";

/// The launch's token, which its log must not show.
fn token(spec: &LaunchSpec) -> Option<String> {
    spec.env.iter().find(|(name, _)| name == TOKEN_VARIABLE).map(|(_, token)| token.clone())
}

/// Variables that every task has.
fn environment(options: &Options, launch: &Launch, facts: &dyn Facts) -> Vec<(String, String)> {
    let run = facts.run();
    let name = facts.task(launch.id.task).map(|row| row.name).unwrap_or_default();
    let mut env = vec![
        ("KOBZA_RUN_ID", run.run.to_string()),
        ("KOBZA_TASK_ID", launch.id.task_id().to_string()),
        ("KOBZA_TASK", name),
        ("KOBZA_ATTEMPT", launch.attempt.to_string()),
        ("KOBZA_WORKFLOW", run.workflow.clone()),
        ("TRACEPARENT", kobza_model::traceparent(launch.id.task_id(), launch.attempt)),
    ];
    if let Some(index) = launch.index {
        env.push(("KOBZA_MAP_INDEX", index.to_string()));
    }
    if let Some(start) = run.interval_start {
        env.push(("KOBZA_INTERVAL_START", start.to_string()));
    }
    if let Some(end) = run.interval_end {
        env.push(("KOBZA_INTERVAL_END", end.to_string()));
    }
    if let Some(partition) = &run.partition {
        env.push(("KOBZA_PARTITION", partition.clone()));
    }
    // Larger parameters reach tasks by their templates only.
    let params = run.params.to_string();
    if params.len() < 64 * 1024 {
        env.push(("KOBZA_PARAMS", params));
    }
    if let Some(url) = &options.api_url {
        env.push(("KOBZA_API_URL", url.clone()));
        if let Some(token) = &options.token {
            env.push((TOKEN_VARIABLE, (token.0)(launch.id)));
        }
    }
    env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
