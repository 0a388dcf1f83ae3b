//! What every store must do, as functions over the traits: each database runs all of them.
//!
//! [`store_suite!`](crate::store_suite) makes one test per function from a fixture.

mod commits;
mod fixtures;
mod log;
mod reading;

pub use commits::*;
pub use fixtures::*;
pub use log::*;
pub use reading::*;

use reading::whole;

use crate::{Fault, Store};

/// A database to test: it can be opened, dropped and opened again.
pub trait Fixture {
    type Store: Store;

    /// Opens the same data, after the last one has been dropped.
    fn open(&self) -> Self::Store;

    /// Makes the next commit of this store fail so.
    fn inject(store: &Self::Store, fault: Fault);
}

/// One test per function of the suite. `$fixture` is an expression that makes a fresh [`Fixture`],
/// or `None` to skip (it must say why on standard error).
#[macro_export]
#[doc(hidden)]
macro_rules! store_suite {
    ($fixture:expr) => {
        $crate::store_suite!(@tests $fixture;
            rows_round_trip
            rows_are_replaced
            an_old_owner_is_fenced
            a_stale_batch_number_is_refused
            events_are_numbered_without_gaps
            unknown_commits_are_told_by_the_shards_row
            a_refused_commit_changes_nothing
            engine_time_never_goes_back
            outputs_are_dropped_before_new_ones
            removed_tasks_go_with_all_they_have
            everything_survives_a_reopen
            workflows_have_versions
            objects_are_put_and_deleted
            only_finished_runs_are_deleted
            old_runs_go_in_bounded_pieces
            runs_are_filtered_and_paged
            runs_of_many_workflows_are_listed
            cursors_stay_good_while_rows_come_and_go
            tasks_are_filtered_paged_and_counted
            a_run_is_seen_whole
            tasks_with_artifacts_are_found
            ends_are_counted_by_the_hour
            workflows_are_listed_with_their_runs
            events_are_followed_by_number
            objects_are_listed_by_prefix
            assets_have_a_history
            readers_see_whole_batches
        );
    };
    (@tests $fixture:expr; $($name:ident)+) => {
        $(#[test]
        fn $name() {
            if let Some(fixture) = $fixture {
                $crate::suite::$name(&fixture);
            }
        })+
    };
}
