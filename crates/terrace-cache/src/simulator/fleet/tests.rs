//! Sound fleets break no invariant, and each defect is found.

use super::*;

/// Runs one fleet; the first violation, if any, with the step at which it showed.
fn run(seed: u64, mutation: Mutation, defect: Defect, deaf_to_gaps: bool) -> Option<String> {
    let mut world = World::new(seed, mutation, defect, deaf_to_gaps);
    for step in 0..STEPS {
        world.step();
        if let Some(violation) = world.violation.take() {
            return Some(format!("seed {seed}, step {step}: {violation}"));
        }
    }
    world.settle();
    world.violation.map(|violation| format!("seed {seed}, at the end: {violation}"))
}

#[test]
fn no_fleet_breaks_an_invariant() {
    let seeds = crate::simulator::seeds(0..1_000);
    let sound = |seed| run(seed, Mutation::None, Defect::None, false);
    let violations: Vec<String> = seeds.filter_map(sound).take(5).collect();
    assert!(violations.is_empty(), "replay one with TERRACE_SIM_SEED: {violations:#?}");
}

/// Each defect with what the simulator says when it finds it.
fn finds(symptom: &str, mutation: Mutation, defect: Defect, deaf_to_gaps: bool) {
    let mut found = (0..300).filter_map(|seed| run(seed, mutation, defect, deaf_to_gaps));
    assert!(
        found.any(|violation| violation.contains(symptom)),
        "{mutation:?}, {defect:?}, deaf to gaps: {deaf_to_gaps}: unnoticed"
    );
}

#[test]
fn the_first_invariant_can_fail() {
    finds("without a lease", Mutation::LoadWhenHeld, Defect::None, false);
}

#[test]
fn the_second_invariant_can_fail() {
    finds("", Mutation::PopulateVoided, Defect::None, false);
    finds("", Mutation::DeafFlights, Defect::None, false);
    finds("called fresh", Mutation::None, Defect::None, true);
    finds("L2 took key", Mutation::None, Defect::AcceptVoid, false);
}

#[test]
fn the_third_invariant_can_fail() {
    finds("L2 took key", Mutation::None, Defect::AcceptOlder, false);
    finds("replaced version", Mutation::OlderReplaces, Defect::None, false);
}

#[test]
fn the_fourth_invariant_can_fail() {
    finds("an error replaced", Mutation::ErrorDropsValue, Defect::None, false);
}

#[test]
fn the_fifth_invariant_can_fail() {
    finds("permits", Mutation::LeakPermits, Defect::None, false);
}

#[test]
fn a_lost_waiter_is_noticed() {
    finds("never answered", Mutation::ForgetWaiters, Defect::None, false);
}
