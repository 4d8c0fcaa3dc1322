//! A circuit breaker around a source: a source that keeps failing is left alone for a while, so that loads fail at once
//! instead of waiting for it one after the other.
//!
//! [`Breaker`] is the state machine: it holds no clock, the time in milliseconds is an argument. [`Guarded`] puts it
//! around a [`Source`].

mod guarded;
#[cfg(test)]
mod tests;
mod window;

pub use guarded::Guarded;
use window::Window;

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerOptions {
    /// So many failures one after the other open it. Default 5; at least 1.
    pub failures: u32,
    /// If this share of the loads of `window_ms` failed, it opens too. Percent, at most 100; default none.
    pub share_percent: Option<u8>,
    /// The time that `share_percent` looks at. Default 10 000; at least 10.
    pub window_ms: u64,
    /// With fewer loads than this in `window_ms` their share does not count. Default 20; at least 1.
    pub loads_min: u32,
    /// How long it stays open before one load may try. Default 2 000.
    pub open_ms: u64,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self { failures: 5, share_percent: None, window_ms: 10_000, loads_min: 20, open_ms: 2_000 }
    }
}

/// What a breaker lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Every load.
    Closed,
    /// None.
    Open,
    /// One, whose outcome decides.
    HalfOpen,
}

impl BreakerState {
    /// `closed`, `open` or `half_open`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// What a breaker did, since it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerStats {
    /// What it lets through now.
    pub state: BreakerState,
    /// How often it opened; a try that failed counts.
    pub opened: u64,
    /// Loads that it refused.
    pub rejected: u64,
}

/// The right to load, to be given back with the outcome.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Pass {
    /// The era of the breaker in which it was given: what began before a change of state says nothing after it.
    era: u64,
}

/// How a load ended, as far as the source's health is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The source answered.
    Good,
    /// The source did not answer, too late, or that it cannot.
    Bad,
    /// The load was given up for reasons that are not the source's.
    Unknown,
}

#[derive(Debug)]
enum State {
    Closed {
        failures: u32,
        window: Window,
    },
    Open {
        until_ms: u64,
    },
    /// `trying`: the one load is under way.
    HalfOpen {
        trying: bool,
    },
}

/// The state machine. Times are those of one monotonic clock.
#[derive(Debug)]
pub struct Breaker {
    options: BreakerOptions,
    state: State,
    era: u64,
    opened: u64,
    rejected: u64,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(options: BreakerOptions) -> Self {
        let options = BreakerOptions {
            failures: options.failures.max(1),
            window_ms: options.window_ms.max(10),
            loads_min: options.loads_min.max(1),
            ..options
        };
        let state = State::Closed { failures: 0, window: Window::default() };
        Self { options, state, era: 0, opened: 0, rejected: 0 }
    }

    /// Asks to load: a pass, or for how many milliseconds more there is none.
    pub fn ask(&mut self, now_ms: u64) -> Result<Pass, u64> {
        if let State::Open { until_ms } = self.state
            && now_ms >= until_ms
        {
            self.change(State::HalfOpen { trying: false });
        }
        let remaining_ms = match &mut self.state {
            State::Closed { .. } => return Ok(Pass { era: self.era }),
            State::HalfOpen { trying } if !*trying => {
                *trying = true;
                return Ok(Pass { era: self.era });
            }
            // Whoever got the pass gives it back, whatever becomes of its load.
            State::HalfOpen { .. } => 0,
            State::Open { until_ms } => *until_ms - now_ms,
        };
        self.rejected += 1;
        Err(remaining_ms)
    }

    /// Takes a pass back.
    pub fn tell(&mut self, pass: Pass, outcome: Outcome, now_ms: u64) {
        if pass.era != self.era {
            return;
        }
        let options = self.options;
        let opens = match &mut self.state {
            State::Closed { failures, window } => match outcome {
                Outcome::Unknown => false,
                Outcome::Good => {
                    *failures = 0;
                    window.count(now_ms, options.window_ms, false);
                    false
                }
                Outcome::Bad => {
                    *failures += 1;
                    window.count(now_ms, options.window_ms, true);
                    let (loads, failed) = window.totals();
                    let share = options.share_percent.is_some_and(|percent| {
                        loads >= u64::from(options.loads_min) && failed * 100 >= loads * u64::from(percent)
                    });
                    *failures >= options.failures || share
                }
            },
            State::HalfOpen { trying } => match outcome {
                Outcome::Good => {
                    self.change(State::Closed { failures: 0, window: Window::default() });
                    false
                }
                Outcome::Bad => true,
                Outcome::Unknown => {
                    *trying = false;
                    false
                }
            },
            // No pass is given out in this state, and those of the state before are of another era.
            State::Open { .. } => false,
        };
        if opens {
            self.opened += 1;
            self.change(State::Open { until_ms: now_ms.saturating_add(options.open_ms) });
        }
    }

    /// What it did.
    pub fn stats(&self) -> BreakerStats {
        let state = match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        };
        BreakerStats { state, opened: self.opened, rejected: self.rejected }
    }

    fn change(&mut self, state: State) {
        self.state = state;
        self.era += 1;
    }
}
