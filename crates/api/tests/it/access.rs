//! Who may use which route: every route, with every kind of wrong credentials.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use kobza_api::{Access, Role, Space};
use kobza_engine::{Command, StartRun};
use kobza_model::{RunId, Timestamp, Workflow};

use crate::world::World;

/// A run of an open workflow in the namespace `default`.
fn run(world: &World) -> RunId {
    let run = RunId(uuid::Uuid::now_v7());
    let workflow = Workflow { name: "w".to_owned(), ..empty() };
    let start = StartRun {
        run,
        namespace: "default".to_owned(),
        workflow: std::sync::Arc::new(workflow),
        version: "1".to_owned(),
        params: serde_json::json!({}),
        key: None,
        trigger: "api".to_owned(),
        interval: None,
        partition: None,
        labels: serde_json::Value::Null,
        parent: None,
        priority: 0,
        extra: serde_json::Value::Null,
    };
    world.handle.submit_blocking(Command::StartRun(Box::new(start))).unwrap();
    run
}

fn empty() -> Workflow {
    serde_json::from_value(serde_json::json!({
        "name": "w", "dialect": "native", "entry": 0,
        "templates": [{"name": "w", "body": {"graph": {"nodes": []}}}],
    }))
    .unwrap()
}

fn filled(route: &Access, run: RunId) -> String {
    let first = if route.path.contains("/tasks/") {
        format!("{run}.0")
    } else if route.path.contains("/triggers/") {
        URL_SAFE_NO_PAD.encode("default/w/t")
    } else {
        run.to_string()
    };
    route
        .path
        .replace("{id}", &first)
        .replace("{attempt}", "1")
        .replace("{name}", "w")
        .replace("{key}", "w")
        .replace("{version}", "1")
        .replace("{path}", "w")
}

/// The next lesser role.
fn lesser(role: Role) -> Option<Role> {
    match role {
        Role::Viewer => None,
        Role::Operator => Some(Role::Viewer),
        Role::Editor => Some(Role::Operator),
        Role::Admin => Some(Role::Editor),
    }
}

#[test]
fn every_route_refuses_who_may_not() {
    let world = World::new();
    let run = run(&world);
    world.write(vec![kobza_store::Write::PutObject {
        kind: kobza_store::kinds::BACKFILL,
        namespace: "default".to_owned(),
        key: run.to_string(),
        value: Some(serde_json::json!({})),
    }]);
    let (admin, _) = world.token("admin", Role::Admin, None, None);
    let (expired, _) = world.token("old", Role::Admin, None, Some(Timestamp(1)));
    let (revoked, id) = world.token("gone", Role::Admin, None, None);
    let bearer = |token: &str| format!("Bearer {token}");
    let basic = |token: &str| format!("Basic {}", STANDARD.encode(format!("any:{token}")));
    let revoke = format!("/api/v1/tokens/{id}");
    assert_eq!(world.status("DELETE", &revoke, &[("authorization", &bearer(&admin))]), 204);
    let (elsewhere, _) = world.token("elsewhere", Role::Admin, Some("other"), None);
    let small: Vec<(Role, String)> = [Role::Viewer, Role::Operator, Role::Editor]
        .into_iter()
        .map(|role| (role, world.token(role.as_str(), role, None, None).0))
        .collect();
    let wrong = [
        None,
        Some("nonsense".to_owned()),
        Some(bearer("nonsense")),
        Some(bearer("kobza_nonsense")),
        Some("Basic !!!".to_owned()),
        Some(basic("kobza_nonsense")),
        Some(bearer(&expired)),
        Some(basic(&expired)),
        Some(bearer(&revoked)),
        Some(basic(&revoked)),
    ];
    // A wrong password is slow on purpose: once is enough, the way to the check is the same.
    let password = format!("Basic {}", STANDARD.encode("admin:password"));
    assert_eq!(world.status("GET", "/api/v1/me", &[("authorization", &password)]), 401);
    let routes = kobza_api::access();
    assert!(routes.len() > 80);
    for route in &routes {
        let path = filled(route, run);
        let told = |given: &str| format!("{} {path} with {given}", route.method);
        let ask = |given: Option<&str>| match given {
            Some(given) => world.status(route.method, &path, &[("authorization", given)]),
            None => world.status(route.method, &path, &[]),
        };
        let Some(role) = route.role else {
            // Open on purpose: these and no others.
            assert!(
                ["/health", "/ready", "/openapi.json", "/session", "/webhooks/w"]
                    .iter()
                    .any(|e| path.ends_with(e)),
                "{} is open",
                route.path
            );
            assert!(![401, 403].contains(&ask(None)), "{}", told("nothing"));
            continue;
        };
        for given in &wrong {
            assert_eq!(ask(given.as_deref()), 401, "{}", told(given.as_deref().unwrap_or("none")));
        }
        let found = ask(Some(&bearer(&elsewhere)));
        if route.space == Space::Handler {
            // The handler shows what is of that namespace, which is nothing.
            assert_ne!(found, 401, "{}", told("another namespace's"));
        } else {
            assert_eq!(found, 403, "{}", told("another namespace's"));
        }
        if let Some(lesser) = lesser(role) {
            let token = &small.iter().find(|(own, _)| *own == lesser).unwrap().1;
            assert_eq!(ask(Some(&bearer(token))), 403, "{}", told(lesser.as_str()));
            assert_eq!(ask(Some(&basic(token))), 403, "{}", told(lesser.as_str()));
        }
    }
    // And those who may are let through to the handler.
    for route in routes.iter().filter(|r| r.role.is_some()) {
        let path = filled(route, run);
        let status = world.status(route.method, &path, &[("authorization", &basic(&admin))]);
        assert!(![401, 403].contains(&status), "{} {path}: {status}", route.method);
    }
}

#[test]
fn other_systems_routes_take_the_same_credentials() {
    let world = World::new();
    // Without accounts everything is allowed on this machine, but not to other sites' pages.
    assert_eq!(world.status("POST", "/other/thing", &[]), 200);
    for path in ["/other/thing", "/api/v1/runs", "/metrics", "/"] {
        let rebound = [("host", "evil.example")];
        assert_eq!(world.status("GET", path, &rebound), 421, "{path}");
    }
    let foreign = [("origin", "http://evil.example")];
    assert_eq!(world.status("POST", "/other/thing", &foreign), 403);
    let (operator, _) = world.token("operator", Role::Operator, None, None);
    let (viewer, _) = world.token("viewer", Role::Viewer, None, None);
    let (elsewhere, _) = world.token("elsewhere", Role::Admin, Some("other"), None);
    let ask = |token: &str| {
        let bearer = format!("Bearer {token}");
        let basic = format!("Basic {}", STANDARD.encode(format!("any:{token}")));
        let by = |given: &str| world.status("POST", "/other/thing", &[("authorization", given)]);
        (by(&bearer), by(&basic))
    };
    assert_eq!(world.status("POST", "/other/thing", &[]), 401);
    assert_eq!(ask("kobza_nonsense"), (401, 401));
    assert_eq!(ask(&viewer), (403, 403));
    assert_eq!(ask(&elsewhere), (403, 403));
    assert_eq!(ask(&operator), (200, 200));
}

#[test]
fn sessions_are_stored_by_their_hash_and_guessing_ends() {
    let world = World::new();
    let roles = [("default".to_owned(), Role::Viewer)].into();
    world.write(vec![kobza_api::user_write("ann", "correct horse", roles).unwrap()]);
    let sign_in = |password: &str| {
        let body = serde_json::json!({"name": "ann", "password": password});
        let agent: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).build().into();
        agent.post(format!("{}/api/v1/session", world.url)).send_json(body).unwrap()
    };
    let answer = sign_in("correct horse");
    assert_eq!(answer.status(), 204);
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap();
    let text = cookie.split_once('=').unwrap().1;
    let kept = world.objects(kobza_store::kinds::SESSION);
    assert_eq!(kept.len(), 1);
    assert!(!format!("{kept:?}").contains(text), "the store must not hold what opens a session");
    let with = |method: &str, path: &str, more: &[(&str, &str)]| {
        let mut headers = vec![("cookie", cookie)];
        headers.extend_from_slice(more);
        world.status(method, path, &headers)
    };
    assert_eq!(with("GET", "/api/v1/runs", &[]), 200);
    assert_eq!(with("GET", "/api/v1/runs?namespace=other", &[]), 403);
    assert_eq!(with("DELETE", "/api/v1/session", &[]), 204);
    assert_eq!(with("GET", "/api/v1/runs", &[]), 401);
    assert!(world.objects(kobza_store::kinds::SESSION).is_empty());
    for _ in 0..10 {
        assert_eq!(sign_in("wrong").status(), 401);
    }
    assert_eq!(sign_in("correct horse").status(), 429, "guessing must not go on");
}
