//! Seeded simulators of the engine.

mod local;
