//! Which lane must catch which bug (`cascade_core::planted`).

/// A bug, and the test that must fail with it.
pub(super) struct Control {
    pub(super) bug: &'static str,
    /// Build and name of the test binary.
    pub(super) binary: (&'static str, &'static str),
    pub(super) test: &'static str,
    pub(super) environment: &'static [(&'static str, &'static str)],
}

const fn control(
    bug: &'static str,
    build: &'static str,
    binary: &'static str,
    test: &'static str,
) -> Control {
    Control { bug, binary: (build, binary), test, environment: &[] }
}

const fn plain(bug: &'static str, binary: &'static str, test: &'static str) -> Control {
    control(bug, "plain", binary, test)
}

const fn files(bug: &'static str, binary: &'static str, test: &'static str) -> Control {
    control(bug, "files", binary, test)
}

/// The simulation of the store.
pub(super) const SIMULATION: &str = "sim::the_store_holds_under_every_seed";

/// In the simulation of the store. It ends with the first seed that shows the bug; of the rarest every thousandth does, and which
/// one changes with every order of calls.
const fn simulated(bug: &'static str) -> Control {
    let (binary, test) = (("store", "cascade_store"), SIMULATION);
    Control { bug, binary, test, environment: &[("CASCADE_SIM_SEEDS", "10000")] }
}

/// In the store's tests over files.
const fn store(bug: &'static str, test: &'static str) -> Control {
    control(bug, "store", "files", test)
}

/// In a test that gives up when its patience ends.
const fn impatient(bug: &'static str, binary: &'static str, test: &'static str) -> Control {
    let environment = &[("CASCADE_TEST_PATIENCE_S", "20")];
    Control { bug, binary: ("store", binary), test, environment }
}

const fn loom(bug: &'static str, binary: &'static str, test: &'static str) -> Control {
    control(bug, "loom", binary, test)
}

const fn shuttle(bug: &'static str, test: &'static str) -> Control {
    control(bug, "shuttle", "shuttle", test)
}

/// Every bug at least once.
pub(super) const CONTROLS: &[Control] = &[
    plain("skip-digest", "arena", "damage_is_a_miss_and_only_once"),
    plain("trust-length", "arena", "a_slot_that_lies_about_its_place_is_a_miss"),
    plain("trust-mode", "hostile", "what_others_can_reach_is_refused_with_the_cure"),
    plain("lost-bitmap-clear", "arena", "a_full_arena_evicts_and_never_exceeds_itself"),
    plain("uncounted-eviction", "arena", "a_full_arena_evicts_and_never_exceeds_itself"),
    plain("leaked-pin", "conformance", "the_arena_conforms"),
    plain("free-before-scan", "conformance", "the_arena_conforms"),
    plain("no-quarantine", "conformance", "the_arena_conforms"),
    plain("seal-before-hide", "conformance", "the_arena_conforms"),
    plain("ignore-intents", "fork", "what_a_child_held_when_it_was_killed_is_given_back"),
    plain("no-fork-check", "fork", "a_child_joins_anew_and_its_parents_lease_stays"),
    files("swallowed-sync", "tier", "a_failed_sync_poisons_the_segment_and_is_never_tried_again"),
    files("swallowed-sync", "tier", "flush_makes_durable_and_tells_when_it_could_not"),
    files("skip-digest", "faults", "every_flipped_zeroed_swapped_or_replayed_range_is_noticed"),
    files("early-answer", "engine", "memory_that_is_lent_is_not_answered_for_while_it_may_be_written"),
    files("unseen-padding", "scrub", "every_changed_range_of_a_segment_is_found"),
    simulated("trusted-rise"),
    simulated("blind-settle"),
    simulated("late-forget"),
    simulated("stale-index"),
    store("stale-index", "stale::a_name_is_never_older_than_what_was_acknowledged"),
    store("no-name-lock", "racing::a_block_that_was_being_copied_does_not_outlive_its_replacement"),
    store("delete-above", "naming::deleted_is_deleted_in_every_tier"),
    impatient("late-note", "files", "failing::what_is_forgotten_late_is_not_taken_for_a_copy"),
    control("never-opens", "store", "tickets", "breaker::a_failing_file_system_is_left_alone"),
    impatient("never-closes", "tickets", "breaker::a_file_system_that_recovers_is_used_again"),
    control(
        "no-budget",
        "store",
        "tickets",
        "submit::bytes_under_way_are_bounded_and_beyond_them_is_throttled",
    ),
    impatient("spent-budget", "tickets", "submit::bytes_under_way_are_bounded_and_beyond_them_is_throttled"),
    impatient("no-sweep", "files", "failing::a_sweep_writes_again_when_space_returns"),
    Control {
        bug: "entry-before-slot",
        binary: ("kill", "kill"),
        test: "whoever_is_killed_the_others_go_on_and_nothing_is_left",
        environment: &[("CASCADE_KILLS", "50")],
    },
    loom("no-generation-bump", "loom", "a_refilled_slot_is_not_taken_for_what_it_held"),
    loom("no-release-on-advance", "loom", "who_finds_a_block_sealed_sees_all_that_was_written_before"),
    loom("no-pin-fence", "loom", "a_pinned_block_is_not_freed"),
    loom("no-scan-fence", "loom", "a_pinned_block_is_not_freed"),
    loom("no-look-after-pin", "loom", "an_old_word_pins_nothing_once_the_slot_holds_another_id"),
    loom("no-recheck-after-claim", "loom", "of_two_claims_on_one_id_at_most_one_is_confirmed"),
    loom("no-scan-after-retire", "loom", "a_retired_block_goes_with_its_last_pin"),
    loom("no-second-look", "loom", "a_slot_that_changes_hands_is_not_found_under_the_wrong_id"),
    loom("late-release", "loom", "threads_of_one_owner_exclude_each_other"),
    loom("lock-from-the-living", "loom_arena", "units_are_given_out_once_while_others_are_given_back"),
    loom("no-rebuild", "loom_arena", "a_region_whose_holder_died_is_rebuilt_before_it_is_used"),
    loom("no-epoch-bump", "loom_arena", "what_the_dead_damaged_is_not_leased_once_they_are_recovered"),
    loom("ignore-intents", "loom_arena", "a_dead_owner_is_recovered_once_by_two_survivors"),
    shuttle("late-release", "two_owners_work_on_two_names"),
    shuttle("free-before-scan", "two_owners_work_on_two_names"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The list in the crate is read as text: xtask depends on none of the crates.
    #[test]
    fn every_planted_bug_has_a_control() {
        let source = std::fs::read_to_string(crate::workspace::root().join("cascade-core/src/planted.rs"));
        let source = source.unwrap();
        let listed = source.split("pub const ALL").nth(1).unwrap().split("];").next().unwrap();
        let names: Vec<String> = listed.split("Self::").skip(1).map(hyphenated).collect();
        assert!(names.len() > 20, "{names:?}");
        for name in &names {
            assert!(CONTROLS.iter().any(|control| control.bug == name), "{name} has no control");
        }
        for control in CONTROLS {
            assert!(names.iter().any(|name| name == control.bug), "{} is no planted bug", control.bug);
        }
    }

    /// `NoPinFence,` as `no-pin-fence`.
    fn hyphenated(variant: &str) -> String {
        let mut name = String::new();
        for letter in variant.chars().take_while(|letter| letter.is_alphanumeric()) {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }
}
