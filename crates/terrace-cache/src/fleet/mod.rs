//! What keeps a fleet gentle with its shared level: when to leave it alone, and how many refreshes a storm may begin.
//! Sans-io: time is an argument.

mod health;
mod rate;

pub(crate) use health::Health;
pub(crate) use rate::Rate;
