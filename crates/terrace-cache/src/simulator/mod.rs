//! Seeded simulators of the engine: one process without an L2, and fleets that share one.
//!
//! A failing run prints its seed. `TERRACE_SIM_SEED` runs that seed alone.

mod fleet;
mod local;
mod model;
mod node;

/// The seeds to run: those given, or the one of the environment.
fn seeds(range: std::ops::Range<u64>) -> std::ops::Range<u64> {
    match std::env::var("TERRACE_SIM_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => range,
    }
}
