//! Who may use the routes of other systems' APIs: every route of Airflow's, with every kind of wrong
//! credentials, and one of each of the others.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kobza_dialect_airflow::rest::{Level, access};
use serde_json::{Value, json};

use crate::machine::{Folder, Server, agent, answer};

fn filled(path: &str) -> String {
    let parts = path.split('/').map(|part| if part.starts_with('{') { "1" } else { part });
    format!("/airflow{}", parts.collect::<Vec<_>>().join("/"))
}

struct Asked<'a> {
    server: &'a Server,
}

impl Asked<'_> {
    fn ask(&self, method: &str, path: &str, given: Option<&str>) -> (u16, Value) {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.server.url))
            .header("content-type", "application/json");
        if let Some(given) = given {
            request = request.header("authorization", given);
        }
        answer(match method {
            "GET" | "DELETE" => agent().run(request.body(()).unwrap()),
            _ => agent().run(request.body("{}").unwrap()),
        })
    }

    fn token(&self, by: Option<&str>, role: &str, namespace: Option<&str>) -> String {
        let mut body = json!({"name": format!("{role}-{namespace:?}"), "role": role});
        if let Some(namespace) = namespace {
            body["namespace"] = json!(namespace);
        }
        let url = format!("{}/api/v1/tokens", self.server.url);
        let mut request = agent().post(url).header("content-type", "application/json");
        if let Some(by) = by {
            request = request.header("authorization", format!("Bearer {by}"));
        }
        let (status, told) = answer(request.send(body.to_string()));
        assert_eq!(status, 201, "{told}");
        told["token"].as_str().unwrap().to_owned()
    }
}

#[test]
fn other_systems_routes_refuse_who_may_not() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let asked = Asked { server: &server };
    // Without accounts any token does, and a sign-in gives one.
    let any = Some("Bearer anything");
    assert_eq!(asked.ask("GET", "/airflow/api/v2/dags", any).0, 200);
    let login = "{\"username\": \"ann\", \"password\": \"correct horse\"}";
    let (status, told) = server.post("/airflow/auth/token", "application/json", login);
    assert_eq!((status, told["access_token"].is_string()), (201, true), "{told}");
    let admin = asked.token(None, "admin", None);
    let small: Vec<(Level, String)> = [
        (Level::Operate, asked.token(Some(&admin), "viewer", None)),
        (Level::Edit, asked.token(Some(&admin), "operator", None)),
    ]
    .to_vec();
    let elsewhere = asked.token(Some(&admin), "admin", Some("other"));
    let bearer = |token: &str| format!("Bearer {token}");
    let basic = |token: &str| format!("Basic {}", STANDARD.encode(format!("any:{token}")));
    let wrong = [
        None,
        Some("nonsense".to_owned()),
        Some(bearer("kobza_nonsense")),
        Some(bearer("kobza_session_nonsense")),
        Some(bearer("no-accounts")),
        Some("Basic !!!".to_owned()),
        Some(basic("kobza_nonsense")),
    ];
    let routes = access();
    assert!(routes.len() > 120, "{}", routes.len());
    for route in &routes {
        let path = filled(route.path);
        let told = |given: &str| format!("{} {path} with {given}", route.method);
        if route.level == Level::Open {
            assert!(
                ["/monitor/health", "/version", "/auth/token", "/auth/token/cli"]
                    .iter()
                    .any(|open| path.ends_with(open)),
                "{path} is open"
            );
            continue;
        }
        for given in &wrong {
            let (status, body) = asked.ask(route.method, &path, given.as_deref());
            assert_eq!(status, 401, "{}", told(given.as_deref().unwrap_or("nothing")));
            assert!(body["detail"].is_string(), "{body}");
        }
        assert_eq!(asked.ask(route.method, &path, Some(&bearer(&elsewhere))).0, 403, "{path}");
        if let Some((_, token)) = small.iter().find(|(level, _)| *level == route.level) {
            for given in [bearer(token), basic(token)] {
                assert_eq!(asked.ask(route.method, &path, Some(&given)).0, 403, "{}", told("less"));
            }
        }
        let (status, _) = asked.ask(route.method, &path, Some(&basic(&admin)));
        assert!(![401, 403].contains(&status), "{}: {status}", told("the right one"));
    }
    // What is not there is told to nobody but those who may look.
    assert_eq!(asked.ask("GET", "/airflow/api/v2/nothing", None).0, 401);
    let viewer = bearer(&small[0].1);
    assert_eq!(asked.ask("GET", "/airflow/api/v2/nothing", Some(&viewer)).0, 404);
    let others = [
        ("GET", "/luigi/api/ping?data=%7B%7D", "viewer may not"),
        ("GET", "/argo/api/v1/workflows/default", "may"),
        ("POST", "/argo/api/v1/workflows/default", "viewer may not"),
    ];
    for (method, path, who) in others {
        assert_eq!(asked.ask(method, path, None).0, 401, "{path}");
        assert_eq!(asked.ask(method, path, Some(&bearer("kobza_nonsense"))).0, 401, "{path}");
        assert_eq!(asked.ask(method, path, Some(&bearer(&elsewhere))).0, 403, "{path}");
        let refused = asked.ask(method, path, Some(&viewer)).0 == 403;
        assert_eq!(refused, who == "viewer may not", "{method} {path}");
        let status = asked.ask(method, path, Some(&basic(&admin))).0;
        assert!(![401, 403].contains(&status), "{path}: {status}");
    }
}

#[test]
fn a_user_signs_in_as_airflows_clients_do() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let asked = Asked { server: &server };
    let user =
        json!({"name": "ann", "password": "correct horse", "roles": {"default": "operator"}});
    let admin = asked.token(None, "admin", None);
    let post = |path: &str, body: String| {
        let request = agent()
            .post(format!("{}{path}", server.url))
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {admin}"));
        answer(request.send(body))
    };
    let (status, told) = post("/api/v1/users", user.to_string());
    assert_eq!(status, 201, "{told}");
    let sign_in = |password: &str| {
        let body = json!({"username": "ann", "password": password}).to_string();
        server.post("/airflow/auth/token", "application/json", &body)
    };
    let (status, told) = sign_in("wrong");
    assert_eq!((status, told["detail"].is_string()), (401, true), "{told}");
    let form = "username=ann&password=correct+horse";
    let kind = "application/x-www-form-urlencoded";
    assert_eq!(server.post("/airflow/auth/token", kind, form).0, 201);
    let (status, told) = sign_in("correct horse");
    assert_eq!(status, 201, "{told}");
    let token = format!("Bearer {}", told["access_token"].as_str().unwrap());
    let ask = |method: &str, path: &str| asked.ask(method, path, Some(&token)).0;
    assert_eq!(ask("GET", "/airflow/api/v2/dags"), 200);
    // An operator of the DAGs' namespace starts runs, but sets no variables and no pools.
    assert_eq!(ask("POST", "/airflow/api/v2/dags/nothing/dagRuns"), 422);
    assert_eq!(ask("POST", "/airflow/api/v2/variables"), 403);
    assert_eq!(ask("POST", "/airflow/api/v2/pools"), 403);
    // It is the user's own session: good elsewhere too.
    assert_eq!(ask("GET", "/api/v1/runs"), 200);
    // Who changes something is on record, and who was refused by its rules.
    let variable = json!({"key": "region", "value": "eu"});
    assert_eq!(post("/airflow/api/v2/variables", variable.to_string()).0, 201);
    let (_, audit) = asked.ask("GET", "/api/v1/audit", Some(&format!("Bearer {admin}")));
    let all = audit["items"].as_array().unwrap();
    let found = |who: &str, target: &str| {
        let own = |one: &&Value| {
            one["principal"].as_str().unwrap_or_default().contains(who)
                && one["target"].as_str().unwrap_or_default().ends_with(target)
        };
        all.iter().find(own).map(|one| (one["action"].clone(), one["result"].clone()))
    };
    assert_eq!(found("ann", "/dagRuns"), Some((json!("airflow.create"), json!("refused"))));
    assert_eq!(found("admin", "/variables"), Some((json!("airflow.create"), json!("ok"))));
}
