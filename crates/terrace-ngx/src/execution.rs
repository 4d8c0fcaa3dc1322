//! Executions of Lua code. Each is a run out of the VM's pool: a run is a large thing, and every phase with code needs
//! one.

use std::cell::RefCell;
use std::rc::Rc;

use terrace_http::Step;
use terrace_lua::{Chunk, Finish, Progress, Run, Value, Values};

use crate::host::{BodyArg, Leave, PhaseHost};

/// A run that goes back to its VM's pool when it is dropped.
pub struct Execution {
    /// There until the drop.
    run: Option<Box<Run<PhaseHost>>>,
}

/// An execution that came to its end, with what it left.
pub struct Ended {
    execution: Execution,
    /// The end.
    pub finish: Finish,
}

impl Execution {
    /// Prepares a run; see [`Run::new`].
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "as for `Run::begin`")]
    pub fn new(chunk: &Chunk, args: &[Value], host: PhaseHost) -> Execution {
        let mut run = host.lua.take_run();
        run.begin(chunk, args, host);
        Execution { run: Some(run) }
    }

    /// Runs to the end; at once where nothing waits.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "what it answers is large, and looked at by its caller at once")]
    pub fn run(mut self) -> Step<Ended> {
        let finish = match &mut self.run {
            None => Finish::Returned,
            Some(run) => match run.step() {
                Progress::Done(finish) => finish,
                Progress::Pending => return Step::wait(self.wait()),
            },
        };
        Step::Ready(Ended { execution: self, finish })
    }

    async fn wait(mut self) -> Ended {
        let finish = match &mut self.run {
            Some(run) => run.await,
            None => Finish::Returned,
        };
        Ended { execution: self, finish }
    }

    fn host(&self) -> Option<&PhaseHost> {
        self.run.as_ref()?.host()
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        if let Some(mut run) = self.run.take()
            && let Some(lua) = run.host().map(|host| Rc::clone(&host.lua))
        {
            run.stop();
            lua.give_run(run);
        }
    }
}

impl Ended {
    /// Where `ngx.exit` and its kin want to go.
    pub fn take_leave(&self) -> Leave {
        self.execution.host().map(|host| host.leave.take()).unwrap_or_default()
    }

    /// The piece of body that a body filter left.
    pub fn take_body(&self) -> BodyArg {
        self.execution.host().and_then(PhaseHost::body).map(RefCell::take).unwrap_or_default()
    }

    /// What the code returned.
    pub fn take_returned(&mut self) -> Values {
        self.execution.run.as_mut().map(|run| run.take_returned()).unwrap_or_default()
    }
}
