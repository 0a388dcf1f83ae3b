//! Which transitions the scenarios take, and that the diagram in the docs is the table.

use kobza_engine::transition;

/// Every scenario, in one thread: coverage is kept by thread.
fn all_scenarios() {
    crate::airflow::thirteen_rules_agree_with_their_formulas_at_every_moment();
    crate::airflow::rules_count_setups_apart();
    crate::airflow::rules_of_mapped_readers_know_their_index();
    crate::airflow::rules_over_a_mapped_upstream();
    crate::airflow::aligned_edges_of_equal_shorter_and_longer_lengths();
    crate::airflow::a_mapped_group_of_three_goes_on_instance_by_instance();
    crate::airflow::teardown_runs_after_failed_work_and_does_not_hide_it();
    crate::airflow::failed_teardown_counts_only_when_asked_to();
    crate::airflow::teardown_follows_its_setup();
    crate::airflow::a_branch_skips_and_skips_again_when_only_the_reader_is_cleared();
    crate::argo::depends_truth_tables();
    crate::argo::guard_skips_count_as_skipped_not_omitted();
    crate::argo::any_succeeded_and_all_failed_speak_of_instances();
    crate::argo::recursion_ends_at_the_depth_limit();
    crate::argo::recursion_that_stops_by_its_condition_succeeds();
    crate::argo::mapped_composites_retry_each_on_its_own();
    crate::argo::fail_fast_kills_what_runs_and_skips_what_waits();
    crate::argo::fail_fast_of_an_expansion_ends_the_others();
    crate::argo::continue_on_counts_for_the_verdict_not_for_gates();
    crate::argo::an_omitted_leaf_stands_for_the_failure_that_omitted_it();
    crate::argo::a_daemon_serves_its_readers_and_ends_with_its_scope();
    crate::argo::steps_are_groups_in_a_row_judged_whole();
    crate::argo::suspend_waits_for_a_call_or_its_time();
    crate::clear::one_task_runs_again_alone();
    crate::clear::downstream_runs_again_too();
    crate::clear::only_failed_takes_what_failed_and_what_followed();
    crate::clear::clearing_gives_the_retries_back();
    crate::clear::one_instance_of_a_map_runs_again();
    crate::clear::a_cleared_map_may_shrink_or_grow();
    crate::clear::a_composite_is_activated_anew();
    crate::clear::a_task_inside_a_composite_reopens_what_owns_it();
    crate::clear::a_running_task_is_killed_and_runs_again();
    crate::clear::waiting_tasks_can_be_cleared();
    crate::clear::every_finished_state_can_be_cleared();
    crate::clear::every_outcome_of_a_composite_can_be_reopened();
    crate::clear::mapped_summaries_of_every_outcome_go_on();
    crate::clear::a_mark_lets_readers_go_on();
    crate::clear::a_mark_after_the_end_changes_how_the_run_ended();
    crate::clear::a_rerun_counts_against_max_active_runs();
    crate::clear::clears_that_mean_nothing_are_refused();
    crate::clear::a_task_inside_a_mapped_composite_reopens_all_above();
    crate::driven::work_is_claimed_by_priority_within_resources();
    crate::driven::batches_are_claimed_together_and_the_last_end_closes_the_run();
    crate::driven::a_claim_that_is_not_renewed_goes_to_another();
    crate::driven::the_machine_comes_back_from_its_rows();
    crate::driven::a_driver_adds_observes_and_closes();
    crate::driven::a_stopped_open_run_cancels_what_is_left();
    crate::hooks::exit_hooks_hold_readers_back();
    crate::hooks::a_hook_that_affects_its_owner_fails_it();
    crate::hooks::hooks_follow_the_outcome_of_the_last_attempt();
    crate::hooks::hooks_of_an_expansion_belong_to_its_instances();
    crate::hooks::a_skipped_or_upstream_failed_task_has_no_hooks();
    crate::hooks::run_hooks_on_success_failure_stop_and_terminate();
    crate::hooks::terminate_ends_hooks_that_run();
    crate::hooks::a_run_hook_that_affects_fails_the_run();
    crate::hooks::hooks_survive_a_restart();
    crate::hooks::a_rerun_calls_its_hooks_again();
    crate::waits::an_attempt_that_runs_too_long_is_killed_and_retried();
    crate::waits::a_tasks_total_time_spans_its_attempts();
    crate::waits::a_tasks_total_time_also_ends_its_waits();
    crate::waits::a_composite_runs_out_of_time_with_all_in_it();
    crate::waits::a_run_out_of_time_fails();
    crate::waits::a_deferred_task_goes_on_as_the_same_attempt();
    crate::waits::waiting_tasks_end_with_a_result();
    crate::waits::a_killed_body_may_end_in_any_way();
    crate::waits::bodies_that_end_unannounced();
    crate::waits::lost_launches_are_sent_again_up_to_the_limit();
    crate::waits::a_launch_lost_before_it_started_is_sent_again();
    crate::waits::stale_and_repeated_reports_change_nothing();
    crate::waits::retries_look_at_the_cause_the_exit_code_and_the_dialect();
    crate::waits::guards_may_skip_succeed_or_fail();
    crate::waits::a_question_may_stay_open_and_be_asked_again();
    crate::waits::a_paused_run_starts_nothing_new();
    crate::waits::priorities_decide_who_is_next();
    crate::waits::a_strict_limit_lets_nobody_pass_and_a_loose_one_does();
    crate::waits::several_limits_are_taken_all_or_none();
    crate::waits::limits_held_while_waiting();
    crate::waits::parallelism_of_a_graph_counts_descendants();
    crate::waits::a_run_stopped_in_its_queue_never_starts();
    crate::why::every_wait_has_its_answer();
    crate::why::open_questions_and_slots();
    crate::why::a_timed_suspension_says_when_it_goes_on();
    crate::why::what_an_instance_and_a_group_wait_for();
    crate::why::who_comes_first_and_what_never_fits();
    crate::basic::chain_of_no_ops_ends_in_one_go();
    crate::basic::failure_travels_down_and_the_run_fails();
    crate::basic::retries_then_succeeds();
    crate::basic::map_expands_in_windows_and_joins();
    crate::basic::map_with_a_failure_fails_its_reader();
    crate::basic::empty_map_is_skipped_or_empty();
    crate::basic::nested_graphs_and_composite_retry();
    crate::basic::limits_hold_back_and_say_so();
    crate::basic::stop_kills_and_cancels();
    crate::basic::guard_skips();
    crate::basic::a_restored_run_goes_on();
}

#[test]
fn every_transition_is_taken_by_some_scenario() {
    all_scenarios();
    let missing = transition::coverage::missing(&transition::coverage::taken());
    let words: Vec<String> =
        missing.iter().map(|(from, mv, to)| format!("{from} --{}--> {to}", mv.as_str())).collect();
    let known: Vec<&str> = NOT_TAKEN.iter().map(|(edge, _)| *edge).collect();
    assert_eq!(words, known);
}

/// Edges that no scenario takes, with the reason.
const NOT_TAKEN: &[(&str, &str)] = &[
    (
        "running --clear--> pending",
        "a running body is killed first, a running composite is cleared inside",
    ),
    (
        "deferred --retry--> retry_wait",
        "a wait ends by resuming, a result, a time-out or a stop; none of these retries",
    ),
    (
        "rescheduled --retry--> retry_wait",
        "a wait ends by resuming, a result, a time-out or a stop; none of these retries",
    ),
    (
        "suspended --retry--> retry_wait",
        "a wait ends by resuming, a result, a time-out or a stop; none of these retries",
    ),
    (
        "succeeded --remove--> removed",
        "a cleared expansion clears its instances, so a shrunk one removes pending ones",
    ),
    (
        "failed --remove--> removed",
        "a cleared expansion clears its instances, so a shrunk one removes pending ones",
    ),
    (
        "skipped --remove--> removed",
        "a cleared expansion clears its instances, so a shrunk one removes pending ones",
    ),
    (
        "upstream_failed --remove--> removed",
        "a cleared expansion clears its instances, so a shrunk one removes pending ones",
    ),
    (
        "cancelled --remove--> removed",
        "a cleared expansion clears its instances, so a shrunk one removes pending ones",
    ),
];

#[test]
fn the_diagram_in_the_docs_is_the_table() {
    let docs = include_str!("../../../../docs/engine-states.md");
    let (_, rest) = docs.split_once("```mermaid\n").expect("a diagram");
    let (diagram, _) = rest.split_once("```").expect("the end of the diagram");
    assert_eq!(diagram, transition::diagram());
}
