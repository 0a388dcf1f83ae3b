//! The supervisor, as a task and its process see it.

use kobza_model::{Cause, Json, NodeNo, Outcome, Timestamp};
use kobza_runtime::{Ended, Protocol as _, Said, Step};
use serde_json::{Value, json};

use super::msgpack::{Frames, frame};
use super::supervisor::Supervisor;

const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

fn supervisor(should_retry: bool, carry: Json) -> Supervisor {
    let startup = json!({
        "ti": {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1},
        "ti_context": {"should_retry": should_retry},
    });
    let extra = json!({"airflow": {"startup": startup, "carry": carry, "max_map_length": 3}});
    Supervisor::of(&extra).unwrap()
}

fn hear(supervisor: &mut Supervisor, body: Json) -> Vec<Step> {
    supervisor.heard(&frame(&json!([7, body, null])), NOW)
}

/// What a step sends to the task.
fn sent(step: &Step) -> Value {
    let (Step::Send(bytes) | Step::SendWithLog(bytes)) = step else { panic!("{step:?}") };
    let mut frames = Frames::default();
    frames.push(bytes);
    frames.take_frame().unwrap().unwrap()
}

fn ended(steps: &[Step]) -> &Ended {
    steps
        .iter()
        .find_map(|step| match step {
            Step::Say(Said::Ended(ended)) => Some(&**ended),
            _ => None,
        })
        .unwrap_or_else(|| panic!("{steps:?}"))
}

fn xcom(key: &str, value: Json, more: Json) -> Json {
    let mut body = json!({
        "type": "SetXCom", "key": key, "value": value, "dag_id": "d", "run_id": "r", "task_id": "t",
        "map_index": -1,
    });
    body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    body
}

#[test]
fn what_a_task_leaves_comes_with_its_end() {
    let mut it = supervisor(false, json!({}));
    let begin = sent(&it.begin(NOW)[0]);
    assert_eq!(begin[1]["start_date"], "2023-11-14T22:13:20.000000Z");
    let steps = hear(&mut it, json!({"type": "SetRenderedFields", "rendered_fields": {"a": 1}}));
    assert!(matches!(steps[0], Step::Wake(_)));
    assert_eq!(sent(&steps[1]), json!([7, null]));
    hear(&mut it, xcom("return_value", json!([1, 2]), json!({"mapped_length": 2})));
    let steps = hear(
        &mut it,
        json!({
            "type": "SucceedTask",
            "task_outlets": [{"name": "n", "uri": "u", "type": "Asset"}, {"name": "al", "type": "AssetAlias"}],
            "outlet_events": [
                {"dest_asset_key": {"name": "n", "uri": "u"}, "extra": {"rows": 1}},
                {"source_alias_name": "al", "dest_asset_key": {"name": "m", "uri": "v"}, "extra": {}},
            ],
        }),
    );
    let end = ended(&steps);
    let keys: Vec<&str> = end.outputs.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["$rendered", "$mapped_length", "return_value"]);
    assert_eq!((end.outcome, end.cause), (Outcome::Succeeded, Cause::None));
    let assets: Vec<&str> = end.published.iter().map(|one| one.asset.as_str()).collect();
    assert_eq!(assets, ["u", "v", "al"]);
    // Late, and taken; the end of the process says nothing new.
    let steps = hear(&mut it, xcom("_link_x", json!("http://x"), json!({})));
    assert_eq!(sent(&steps[1]), json!([7, null]));
    let late = vec![("_link_x".to_owned(), json!("http://x"))];
    assert_eq!(it.ended(Some(0)), [Step::Say(Said::Outputs(late))]);
}

#[test]
fn ends_follow_words_and_exit_codes() {
    let state = |word: &str| json!({"type": "TaskState", "state": word});
    for (said, exit, outcome) in [
        (None, 0, Outcome::Succeeded),
        (Some(state("skipped")), 0, Outcome::Skipped),
        (Some(state("failed")), 0, Outcome::Failed),
        (Some(state("skipped")), 1, Outcome::Failed),
        (None, 2, Outcome::Failed),
    ] {
        let mut it = supervisor(true, json!({}));
        if let Some(said) = &said {
            let steps = hear(&mut it, said.clone());
            assert!(!steps.iter().any(|step| matches!(step, Step::Say(_))), "not before the exit");
        }
        let steps = it.ended(Some(exit));
        let end = ended(&steps);
        assert_eq!(end.outcome, outcome, "{said:?} {exit}");
        let never = end.outputs.contains(&("$no_retry".to_owned(), json!(true)));
        assert_eq!(never, outcome == Outcome::Failed && exit == 0, "{said:?} {exit}");
    }
    // How a signal ended it is the shim's to tell.
    assert_eq!(supervisor(true, json!({})).ended(None), []);
}

#[test]
fn retries_carry_what_a_policy_says() {
    let mut it = supervisor(true, json!({}));
    it.logged(b"{\"level\":\"error\",\"event\":\"x\",\"exception\":[{\"exc_type\":\"ValueError\",\"exc_value\":\"boom\",\"frames\":[]}]}\n");
    let steps = hear(&mut it, json!({"type": "RetryTask", "retry_delay_seconds": 2.5}));
    let end = ended(&steps);
    assert_eq!(end.outputs, [("$retry_delay".to_owned(), json!(2.5))]);
    assert_eq!((end.outcome, end.message.as_deref()), (Outcome::Failed, Some("ValueError: boom")));
}

#[test]
fn waits_remember_what_comes_next() {
    let mut it = supervisor(false, json!({}));
    it.begin(NOW);
    let steps = hear(
        &mut it,
        json!({
            "type": "DeferTask", "classpath": "a.T", "trigger_kwargs": {"k": 1},
            "trigger_timeout": "P1DT1S", "next_method": "done", "next_kwargs": {"x": 2},
        }),
    );
    let Step::Say(Said::Deferred { until, carry }) = &steps[0] else { panic!("{steps:?}") };
    assert_eq!(*until, Some(Timestamp(NOW.0 + 86_401_000_000)));
    assert_eq!(carry["trigger"], json!({"classpath": "a.T", "kwargs": {"k": 1}}));
    assert_eq!(carry["start_date"], json!(NOW));
    // Woken by the time-out, it fails; by an event, it goes on.
    let woken = super::Carry::of(carry).woken();
    assert_eq!(woken.next_method.as_deref(), Some("__fail__"));
    let woken = super::Carry::of(carry).with_event(json!("now")).woken();
    assert_eq!(woken.next_method.as_deref(), Some("done"));
    assert_eq!(woken.next_kwargs, json!({"x": 2, "event": "now"}));

    let mut it = supervisor(false, json!({"reschedules": 1, "first_reschedule": NOW}));
    it.begin(Timestamp(NOW.0 + 5));
    let asked = hear(&mut it, json!({"type": "GetTaskRescheduleStartDate", "ti_id": "x"}));
    assert_eq!(sent(&asked[0])[1]["start_date"], json!(NOW));
    let steps =
        hear(&mut it, json!({"type": "RescheduleTask", "reschedule_date": NOW, "end_date": NOW}));
    let Step::Say(Said::Rescheduled { carry, .. }) = &steps[0] else { panic!("{steps:?}") };
    assert_eq!(*carry, json!({"reschedules": 2, "first_reschedule": NOW}));
}

#[test]
fn questions_go_to_the_server_behind_what_was_left() {
    let mut it = supervisor(false, json!({}));
    hear(&mut it, xcom("a", json!(1), json!({})));
    let steps = hear(&mut it, json!({"type": "GetVariable", "key": "k"}));
    assert!(matches!(&steps[0], Step::Say(Said::Outputs(outputs)) if outputs.len() == 1));
    let Step::Ask { number, body } = &steps[1] else { panic!("{steps:?}") };
    assert_eq!(body["key"], "k");
    let answer = it.answered(*number, Ok(json!({"type": "VariableResult", "value": "v"})));
    assert_eq!(sent(&answer[0]), json!([7, {"type": "VariableResult", "value": "v"}]));
    assert_eq!(it.answered(*number, Ok(Json::Null)), [], "one answer is enough");

    let steps = hear(&mut it, xcom("skipmixin_key", json!({"followed": []}), json!({})));
    let Some(Step::Ask { number, .. }) = steps.last() else { panic!("{steps:?}") };
    it.answered(*number, Ok(json!({"nodes": [3]})));
    let steps = hear(&mut it, json!({"type": "SucceedTask"}));
    assert_eq!(ended(&steps).skips, [NodeNo(3)]);

    let steps = hear(&mut it, json!({"type": "GetXCom", "key": "k"}));
    assert_eq!(sent(&steps[0])[2]["error"], "API_SERVER_ERROR", "without a place");
    let steps = hear(&mut it, json!({"type": "Telepathy"}));
    let words = sent(&steps[0])[2]["detail"]["message"].as_str().unwrap().to_owned();
    assert!(words.contains("Telepathy"), "{words}");
    let steps = hear(&mut it, xcom("x", json!([]), json!({"mapped_length": 4})));
    assert_eq!(sent(&steps[0])[2]["error"], "API_SERVER_ERROR", "too long to map over");
    let steps = hear(&mut it, xcom("$x", json!(1), json!({})));
    assert_eq!(sent(&steps[0])[2]["error"], "API_SERVER_ERROR", "a name of ours");
}

#[test]
fn nonsense_ends_the_conversation() {
    for bytes in
        [&b"\xff\xff\xff\xff"[..], b"\0\0\0\x01\xc1", b"\0\0\0\x01\x01", b"\0\0\0\x02\x91\x01"]
    {
        let mut it = supervisor(false, json!({}));
        let steps = it.heard(bytes, NOW);
        assert!(matches!(&steps[..], [Step::Refuse(_)]), "{steps:?}");
        assert_eq!(it.heard(bytes, NOW), []);
    }
}
