//! Calls that are repeated under their idempotency key.

use kobza_store::{Write, kinds};
use serde_json::{Value, json};

use crate::world::World;

/// Starts a run of `w` under a key; the answer's status, whether it was kept, and the run.
fn start(world: &World, key: &str) -> (u16, bool, String) {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let call = agent.post(format!("{}/api/v1/workflows/w/runs", world.url));
    let mut answer = call.header("idempotency-key", key).send_json(json!({})).unwrap();
    let replayed = answer.headers().contains_key("idempotency-replayed");
    let body: Value = answer.body_mut().read_json().unwrap();
    (answer.status().as_u16(), replayed, body["id"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_call_whose_answer_was_not_kept_makes_nothing_twice() {
    let world = World::new();
    let workflow = serde_json::from_value(json!({
        "name": "w", "dialect": "native", "entry": 0,
        "templates": [{"name": "w", "body": {"graph": {"nodes": []}}}],
    }))
    .unwrap();
    world.write(vec![Write::PutWorkflow {
        namespace: "default".to_owned(),
        version: "1".to_owned(),
        workflow: std::sync::Arc::new(workflow),
        source: None,
    }]);
    let (status, replayed, run) = start(&world, "k");
    assert_eq!((status, replayed), (201, false));
    // As if the server had died when the run was durable and the answer was not kept yet.
    let kept = &world.objects(kinds::IDEMPOTENCY)[0];
    world.write(vec![Write::PutObject {
        kind: kinds::IDEMPOTENCY,
        namespace: String::new(),
        key: kept.key.clone(),
        value: Some(json!({"print": kept.value["print"], "begun": run})),
    }]);
    assert_eq!(start(&world, "k"), (201, false, run.clone()), "the run that was made");
    assert_eq!(start(&world, "k"), (201, true, run.clone()), "the answer that was kept");
    let (status, _, other) = start(&world, "another");
    assert_eq!(status, 201);
    assert_ne!(other, run);
}
