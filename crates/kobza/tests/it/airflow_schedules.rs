//! What starts Airflow's DAGs beside people: assets, timetables of the user's own, backfills.

use kobza_model::Timestamp;
use serde_json::{Value, json};

use crate::airflow_run::{Dags, dags, outputs, start, tasks};
use crate::machine::{Server, until};

const SCHEDULES: &str = include_str!("airflow/schedules.py");
const OWN: &str = include_str!("airflow/own.py");

fn scheduled() -> Option<Dags> {
    let dags = dags()?;
    std::fs::remove_file(dags.folder.path().join("dags/run.py")).unwrap();
    dags.folder.write("dags/schedules.py", SCHEDULES);
    std::fs::create_dir_all(dags.folder.path().join("home/plugins")).unwrap();
    dags.folder.write("home/plugins/own.py", OWN);
    Some(dags)
}

fn server(dags: &Dags) -> Server {
    let server = dags.server(&[("AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION", "False")]);
    until("the DAGs and their triggers are read", || {
        let (_, triggers) = server.get("/api/v1/triggers?limit=100");
        let triggers = triggers["items"].as_array().cloned().unwrap_or_default();
        triggers.len() == 10
    });
    server
}

fn runs(server: &Server, dag: &str) -> Vec<Value> {
    let (_, page) = server.get(&format!("/api/v1/runs?workflow={dag}&limit=100"));
    let mut runs = page["items"].as_array().cloned().unwrap_or_default();
    runs.sort_by_key(|run| run["id"].as_str().unwrap().to_owned());
    runs
}

/// What the only task of each run of a DAG returned, once there are so many runs.
fn returned(server: &Server, dag: &str, task: &str, count: usize) -> Vec<Value> {
    until(&format!("{dag} has run {count} times"), || runs(server, dag).len() >= count);
    let mut all = Vec::new();
    for run in runs(server, dag) {
        let id = run["id"].as_str().unwrap();
        assert_eq!(server.wait_run(id), "succeeded", "{dag}: {:#?}", tasks(server, id));
        all.push(outputs(server, id, task)["return_value"].clone());
    }
    all
}

fn start_with(server: &Server, dag: &str, body: &Value) -> String {
    let path = format!("/api/v1/workflows/{dag}/runs");
    let (status, said) = server.post(&path, "application/json", &body.to_string());
    assert!(status < 300, "{said}");
    said["id"].as_str().unwrap().to_owned()
}

#[test]
fn updates_of_assets_start_dags() {
    let Some(dags) = scheduled() else { return };
    let mut server = server(&dags);
    // Another system makes the stock.
    let yaml =
        "name: makes-stock\ntasks:\n  make: {shell: 'true', produces: ['s3://shop/stock']}\n";
    dags.folder.write("stock.yaml", yaml);
    let (status, said) = server.post("/api/v1/workflows", "application/yaml", yaml);
    assert!(status < 300, "{said}");
    let make = |server: &Server, rows: u32| {
        let run = start_with(server, "makes_orders", &json!({"params": {"rows": rows}}));
        assert_eq!(server.wait_run(&run), "succeeded", "{:#?}", tasks(server, &run));
    };
    make(&server, 1);
    let order = |rows: u32| json!(["s3://shop/orders", {"rows": rows}, "makes_orders", "make"]);
    let told = returned(&server, "either", "tell", 1);
    assert_eq!(told[0]["events"], json!([order(1)]));
    assert_eq!(
        (&told[0]["type"], &told[0]["logical"]),
        (&json!("asset_triggered"), &json!("None"))
    );
    assert_eq!(returned(&server, "by_name", "tell", 1)[0]["events"], json!([order(1)]));
    let key = runs(&server, "either")[0]["key"].as_str().unwrap().to_owned();
    assert!(key.starts_with("asset_triggered__20"), "{key}");
    // Half of a condition outlives the server.
    make(&server, 2);
    server.kill_9();
    server = self::server(&dags);
    assert!(runs(&server, "both").is_empty());
    let stock = start(&server, "makes-stock");
    assert_eq!(server.wait_run(&stock), "succeeded");
    let events = &returned(&server, "both", "tell", 1)[0]["events"];
    assert_eq!((&events[0], &events[1]), (&order(1), &order(2)));
    assert_eq!(events[2], json!(["s3://shop/stock", {}, "makes-stock", "make"]));
    // Time has started it once too.
    let or_time = returned(&server, "or_time", "tell", 2);
    let by_asset = or_time.iter().find(|told| told["type"] == "asset_triggered").unwrap();
    assert_eq!(by_asset["events"], json!([["s3://shop/stock", {}, "makes-stock", "make"]]));
    let by_name = start(&server, "makes_by_name");
    assert_eq!(server.wait_run(&by_name), "succeeded");
    let reference = json!(["s3://shop/orders", {}, "makes_by_name", "by_reference"]);
    assert_eq!(returned(&server, "by_name", "tell", 3)[2]["events"], json!([reference]));
    let alias = start(&server, "makes_by_alias");
    assert_eq!(server.wait_run(&alias), "succeeded");
    let sale = json!(["s3://shop/sales", {"by": "alias"}, "makes_by_alias", "make_alias"]);
    assert_eq!(returned(&server, "aliased", "tell", 1)[0]["events"], json!([sale]));
    assert_eq!(returned(&server, "either", "tell", 4)[3]["events"], json!([sale]));
}

#[test]
fn partitions_of_assets_start_dags_by_their_mappers() {
    let Some(dags) = scheduled() else { return };
    let server = server(&dags);
    for hour in ["2024-03-01T05:00:00", "2024-03-01T06:00:00"] {
        let body = json!({"partition": hour});
        let run = start_with(&server, "makes_hours", &body);
        assert_eq!(server.wait_run(&run), "succeeded", "{:#?}", tasks(&server, &run));
    }
    let same = returned(&server, "same", "tell", 2);
    let keys: Vec<&Value> = same.iter().map(|told| &told["partition"]).collect();
    assert_eq!(keys, [&json!("2024-03-01T05:00:00"), &json!("2024-03-01T06:00:00")]);
    assert_eq!(same[0]["events"].as_array().unwrap().len(), 1);
    let days = returned(&server, "days", "tell", 2);
    assert_eq!(days[0]["partition"], "2024-03-01");
    assert_eq!(days[0]["date"], "2024-03-01 00:00:00+00:00");
}

#[test]
fn timetables_and_weight_rules_of_the_user_s_own_are_asked() {
    let Some(dags) = scheduled() else { return };
    let server = server(&dags);
    let intervals = returned(&server, "eighths", "first", 3);
    let expected = json!([
        ["2024-01-01 00:00:00+00:00", "2024-01-01 08:00:00+00:00"],
        ["2024-01-01 08:00:00+00:00", "2024-01-01 16:00:00+00:00"],
        ["2024-01-01 16:00:00+00:00", "2024-01-02 00:00:00+00:00"],
    ]);
    assert_eq!(Value::Array(intervals), expected);
    assert_eq!(runs(&server, "eighths")[2]["key"], "scheduled__2024-01-02T00:00:00+00:00");
    let run = runs(&server, "eighths")[0]["id"].as_str().unwrap().to_owned();
    let first = tasks(&server, &run)["first"].clone();
    assert_eq!(first["priority"], 45, "{first:#?}");
    let id = start_with(&server, "eighths", &json!({}));
    assert_eq!(server.wait_run(&id), "succeeded");
    let run = server.run(&id);
    let instant = |name: &str| run[name].as_str().unwrap().parse::<Timestamp>().unwrap().0;
    assert_eq!(instant("interval_end") - instant("interval_start"), 8 * 60_000_000, "{run:#?}");
}

#[test]
fn backfills_go_over_timetables_with_airflow_s_options() {
    let Some(dags) = scheduled() else { return };
    let server = server(&dags);
    let backfill = |body: &Value| {
        let mut body = body.clone();
        body["workflow"] = json!("daily");
        server.post("/api/v1/backfills", "application/json", &body.to_string())
    };
    let begin = |body: Value| {
        let (status, said) = backfill(&body);
        assert!(status < 300, "{said}");
        let id = said["id"].as_str().unwrap().to_owned();
        let mut row = Value::Null;
        until("the backfill ends", || {
            row = server.get(&format!("/api/v1/backfills/{id}")).1;
            !["running", "paused"].contains(&row["state"].as_str().unwrap())
        });
        row
    };
    let range = |more: Value| {
        let mut body = json!({"from": "2024-02-01", "to": "2024-02-04"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let preview = backfill(&range(json!({"dry_run": true, "only": "new"}))).1;
    assert_eq!(preview["counts"], json!({"create": 4, "rerun": 0, "skip": 0}), "{preview}");
    // The newest first, three at once, though the DAG itself runs one at a time.
    let first = begin(range(json!({
        "only": "new", "order": "descending", "parallelism": 3,
        "params": {"fail_on": "2024-02-02", "x": 7},
    })));
    assert_eq!(first["state"], "failed", "{first}");
    assert_eq!(first["counts"]["succeeded"], 3);
    let mut all = runs(&server, "daily");
    all.sort_by_key(|run| run["key"].as_str().unwrap().to_owned());
    let keys: Vec<&str> = all.iter().map(|run| run["key"].as_str().unwrap()).collect();
    let days = [1, 2, 3, 4].map(|day| format!("backfill__2024-02-0{day}T00:00:00+00:00"));
    assert_eq!(keys, days);
    let value = outputs(&server, all[3]["id"].as_str().unwrap(), "day")["return_value"].clone();
    assert_eq!(value, json!(["backfill", keys[3], 7]));
    // What is there is left alone, what failed is run again in its own run, or all of it.
    let none = begin(range(json!({"only": "new"})));
    assert_eq!((&none["counts"]["skipped"], &none["state"]), (&json!(4), &json!("succeeded")));
    let failed = begin(range(json!({"only": "missing"})));
    assert_eq!(failed["counts"]["skipped"], 3, "{failed}");
    assert_eq!(
        (&failed["counts"]["succeeded"], &failed["state"]),
        (&json!(1), &json!("succeeded"))
    );
    let completed = begin(range(json!({"only": "ended", "params": {"x": 8}})));
    assert_eq!(completed["counts"]["succeeded"], 4, "{completed}");
    let again = runs(&server, "daily");
    assert_eq!(again.len(), 4, "no run is made twice");
    for run in &again {
        let value = outputs(&server, run["id"].as_str().unwrap(), "day")["return_value"].clone();
        assert_eq!(value[2], 8);
    }
    // And without a server's own words for it.
    let client = [
        "backfill",
        "--server",
        &server.url(),
        "preview",
        "daily",
        "--from",
        "2024-02-01",
        "--to",
        "2024-02-05",
        "--only",
        "new",
    ];
    let said = dags.folder.kobza(&client);
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(text.contains("5 slots"), "{text}{}", String::from_utf8_lossy(&said.stderr));
    let (status, refused) = backfill(&json!({"from": "2124-01-01", "to": "2124-01-02"}));
    assert!(status >= 400 && refused.to_string().contains("future"), "{refused}");
}
