//! The first start: makes a database file that does not exist yet from an SQL script.
//!
//! Invariant: at the database's path there is either nothing or a database that the whole script has run in. The
//! script runs in one transaction in a temporary file of the same directory, which is then put in place without
//! replacing anything, so neither a crash nor a second process on the same start can leave or destroy a part.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

/// The largest script that is run: 256 MiB.
pub const SCRIPT_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The mode of a new database file, before the umask.
const DATABASE_MODE: u32 = 0o666;

/// Why a database could not be made. All are for the operator, and no retry helps until something is changed.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The script cannot be read.
    #[error("the script {path} cannot be read: {error}")]
    Script {
        /// The script.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The database's directory does not take the new file.
    #[error("the database {path} cannot be made: {error}")]
    File {
        /// The database.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The database does not take the script.
    #[error("the script {path} failed: {error}")]
    Sql {
        /// The script.
        path: PathBuf,
        /// What SQLite said.
        error: String,
    },
}

/// Makes the SQLite database at `database` by running `script`, if there is no file. Answers whether it did; it did
/// not either when another process was faster.
///
/// The script must hold no transaction statement of its own. Blocks until the file is in place; may be called from
/// any thread, also from one that belongs to a runtime.
pub fn init(database: &Path, script: &Path) -> Result<bool, InitError> {
    if database.symlink_metadata().is_ok() {
        return Ok(false);
    }
    let text = read(script).map_err(|error| InitError::Script { path: script.to_owned(), error })?;
    let file_error = |error| InitError::File { path: database.to_owned(), error };
    let directory = database.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let new = tempfile::Builder::new()
        .prefix(".terrace-")
        .permissions(Permissions::from_mode(DATABASE_MODE))
        .tempfile_in(directory)
        .map_err(file_error)?
        .into_temp_path();
    run_apart(&new, text).map_err(|error| InitError::Sql { path: script.to_owned(), error })?;
    match new.persist_noclobber(database) {
        Ok(()) => {}
        Err(failed) if failed.error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(failed) => return Err(file_error(failed.error)),
    }
    // SQLite has synced the file; the name is on disk once its directory is.
    std::fs::File::open(directory).and_then(|it| it.sync_all()).map_err(file_error)?;
    Ok(true)
}

fn read(script: &Path) -> io::Result<String> {
    if std::fs::metadata(script)?.len() > SCRIPT_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {SCRIPT_BYTES_MAX} bytes")));
    }
    std::fs::read_to_string(script)
}

/// Runs the script on a thread of its own: the caller's may already drive a runtime, which cannot be nested.
fn run_apart(database: &Path, script: String) -> Result<(), String> {
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        runtime.block_on(run(database, script)).map_err(|error| error.to_string())
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("sql-init".to_owned()).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| error.to_string())?;
        thread.join().unwrap_or_else(|_| Err("it did not end".to_owned()))
    })
}

async fn run(database: &Path, script: String) -> Result<(), sqlx::Error> {
    let mut connection = SqliteConnectOptions::new().filename(database).connect().await?;
    let outcome = fill(&mut connection, script).await;
    connection.close().await?;
    outcome
}

async fn fill(connection: &mut SqliteConnection, script: String) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut *transaction).await?;
    transaction.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT); -- a comment; with a semicolon
        INSERT INTO t VALUES (1, 'a;b'), (2, 'c');";

    struct Rig {
        dir: tempfile::TempDir,
        database: PathBuf,
        script: PathBuf,
    }

    impl Rig {
        fn new(script: &str) -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join("init.sql");
            std::fs::write(&path, script).expect("the script is written");
            Self { database: dir.path().join("new.db"), script: path, dir }
        }

        fn names(&self) -> Vec<String> {
            let entries = std::fs::read_dir(self.dir.path()).expect("the directory is read");
            let mut names: Vec<String> =
                entries.map(|it| it.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        }
    }

    fn count(database: &Path) -> i64 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut connection =
                SqliteConnectOptions::new().filename(database).connect().await.expect("it opens");
            sqlx::query_scalar("SELECT count(*) FROM t").fetch_one(&mut connection).await.expect("a count")
        })
    }

    #[test]
    fn makes_the_database_once_and_leaves_nothing_else() {
        let rig = Rig::new(SCRIPT);
        assert!(init(&rig.database, &rig.script).expect("the script is good"));
        assert_eq!(count(&rig.database), 2);
        assert_eq!(rig.names(), ["init.sql", "new.db"]);
        std::fs::write(&rig.script, "nonsense").expect("the script is written");
        assert!(!init(&rig.database, &rig.script).expect("the script is not read again"));
    }

    #[test]
    fn a_script_that_fails_leaves_no_database() {
        let rig = Rig::new("CREATE TABLE t (id INTEGER); INSERT INTO nowhere VALUES (1);");
        let error = init(&rig.database, &rig.script).expect_err("the script is bad").to_string();
        assert!(error.contains("init.sql failed: ") && error.contains("nowhere"), "{error}");
        assert_eq!(rig.names(), ["init.sql"]);
    }

    #[test]
    fn missing_files_are_named() {
        let rig = Rig::new(SCRIPT);
        let error = init(&rig.database, &rig.dir.path().join("no.sql")).expect_err("there is no script");
        assert!(matches!(&error, InitError::Script { path, .. } if path.ends_with("no.sql")), "{error}");
        let error = init(&rig.dir.path().join("no/new.db"), &rig.script).expect_err("there is no directory");
        assert!(matches!(&error, InitError::File { path, .. } if path.ends_with("no/new.db")), "{error}");
    }

    #[test]
    fn of_many_at_once_one_makes_it() {
        let rig = Rig::new(SCRIPT);
        let made = std::thread::scope(|scope| {
            let one = || init(&rig.database, &rig.script).expect("the script is good");
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(one)).collect();
            threads.into_iter().map(|it| it.join().expect("no panic")).filter(|it| *it).count()
        });
        assert_eq!((made, count(&rig.database)), (1, 2));
        assert_eq!(rig.names(), ["init.sql", "new.db"]);
    }

    #[tokio::test]
    async fn runs_inside_a_runtime() {
        let rig = Rig::new(SCRIPT);
        assert!(init(&rig.database, &rig.script).expect("the script is good"));
    }
}
