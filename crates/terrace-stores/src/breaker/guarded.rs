//! A source with a breaker around it.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use terrace_cache::{BoxFuture, LoadError, LoadRequest, Loaded, Source};

use super::{Breaker, BreakerOptions, BreakerStats, Outcome, Pass};

/// A source whose loads go through a [`Breaker`]. While it is open they fail at once as unavailable.
///
/// What counts as a failure is that the source is unavailable or takes too long; that includes a load that the cache gave
/// up (its future was dropped). A wrong query or parameter says nothing about the source's health.
pub struct Guarded {
    source: Arc<dyn Source>,
    breaker: Mutex<Breaker>,
    /// The breaker's clock begins here.
    began: Instant,
}

impl Guarded {
    /// Puts a closed breaker around a source.
    pub fn new(source: Arc<dyn Source>, options: BreakerOptions) -> Self {
        Self { source, breaker: Mutex::new(Breaker::new(options)), began: Instant::now() }
    }

    /// What the breaker did.
    pub fn stats(&self) -> BreakerStats {
        self.breaker.lock().stats()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn run(&self, request: LoadRequest) -> Result<Loaded, LoadError> {
        let pass = self.breaker.lock().ask(self.now_ms()).map_err(|remaining_ms| {
            LoadError::Unavailable(format!("circuit open, next try in {remaining_ms} ms").into())
        })?;
        let mut held = Held { guarded: self, pass: Some(pass), outcome: Outcome::Bad };
        let loaded = self.source.load(request).await;
        held.outcome = match &loaded {
            Ok(_) | Err(LoadError::Invalid(_)) => Outcome::Good,
            Err(LoadError::Request(_) | LoadError::Abandoned) => Outcome::Unknown,
            Err(LoadError::Unavailable(_) | LoadError::Timeout(_)) => Outcome::Bad,
        };
        loaded
    }
}

impl Source for Guarded {
    fn load(&self, request: LoadRequest) -> BoxFuture<'_, Result<Loaded, LoadError>> {
        Box::pin(self.run(request))
    }
}

/// Gives the pass back, also when the load is dropped or panics: then with [`Outcome::Bad`].
struct Held<'a> {
    guarded: &'a Guarded,
    pass: Option<Pass>,
    outcome: Outcome,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(pass) = self.pass.take() {
            self.guarded.breaker.lock().tell(pass, self.outcome, self.guarded.now_ms());
        }
    }
}
