//! As whom and with which limits the serving process runs.

use std::ffi::CString;
use std::io;

use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{geteuid, initgroups, setgid, setuid};

use crate::main_conf::MainConf;
use crate::process::StartError;

/// Applies `worker_rlimit_nofile`, `user` and `working_directory`, in this order. The user's are left alone
/// when the process has no right to change them.
///
/// # Errors
/// What the system refuses.
pub fn apply(main: &MainConf) -> Result<(), StartError> {
    if let Some(n) = main.open_files_max {
        setrlimit(Resource::RLIMIT_NOFILE, n, n).map_err(failed(format!("setrlimit(RLIMIT_NOFILE, {n})")))?;
    }
    if let Some(user) = main.user.as_ref().filter(|_| geteuid().is_root()) {
        setgid(user.group_id).map_err(failed(format!("setgid({})", user.group_id)))?;
        let name = CString::new(user.name.as_str()).unwrap_or_default();
        initgroups(&name, user.group_id)
            .map_err(failed(format!("initgroups({}, {})", user.name, user.group_id)))?;
        setuid(user.id).map_err(failed(format!("setuid({})", user.id)))?;
    }
    if let Some(dir) = &main.working_directory {
        std::env::set_current_dir(dir)
            .map_err(StartError::system(format!("chdir(\"{}\")", dir.display())))?;
    }
    Ok(())
}

fn failed(what: String) -> impl FnOnce(nix::Error) -> StartError {
    |e| StartError::system(what)(io::Error::from(e))
}
