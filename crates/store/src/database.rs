//! One SQLite file: a single writer with group commit, a few readers.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use tokio::sync::{Notify, oneshot, watch};

use failpoint::Point;

use crate::changes::{ChangeWatch, Changes};
use crate::error::{DiskProblem, Error, Result};
use crate::resources::ResourceKey;

const MIGRATIONS: &[(&str, &str)] = &[
    ("0001_resources", include_str!("migrations/0001_resources.sql")),
    ("0002_identity", include_str!("migrations/0002_identity.sql")),
    ("0003_objects", include_str!("migrations/0003_objects.sql")),
    ("0004_logs", include_str!("migrations/0004_logs.sql")),
    ("0005_object_details", include_str!("migrations/0005_object_details.sql")),
    ("0006_metrics", include_str!("migrations/0006_metrics.sql")),
    ("0007_failures", include_str!("migrations/0007_failures.sql")),
    ("0008_warm_pools", include_str!("migrations/0008_warm_pools.sql")),
    ("0009_keys", include_str!("migrations/0009_keys.sql")),
    ("0010_remote_buckets", include_str!("migrations/0010_remote_buckets.sql")),
    ("0011_experiments", include_str!("migrations/0011_experiments.sql")),
    ("0012_neighbours", include_str!("migrations/0012_neighbours.sql")),
    ("0013_pipelines", include_str!("migrations/0013_pipelines.sql")),
    ("0014_effects", include_str!("migrations/0014_effects.sql")),
    ("0015_retention", include_str!("migrations/0015_retention.sql")),
    ("0016_properties", include_str!("migrations/0016_properties.sql")),
    ("0017_covering_lists", include_str!("migrations/0017_covering_lists.sql")),
    ("0018_scaling_activities", include_str!("migrations/0018_scaling_activities.sql")),
    ("0019_alarms", include_str!("migrations/0019_alarms.sql")),
    ("0020_async_requests", include_str!("migrations/0020_async_requests.sql")),
    ("0021_executions_by_pipeline", include_str!("migrations/0021_executions_by_pipeline.sql")),
];

/// Most writes that share one commit.
const MOST_WRITES_PER_COMMIT: usize = 256;

/// Idle read connections that are kept.
const KEPT_READERS: usize = 8;

/// An open transaction (in `write`) or a read-only snapshot (in `read`); the typed queries are its methods.
pub struct Session<'a> {
    pub(crate) connection: &'a Connection,
    /// Resources whose events this session appended.
    pub(crate) changed: RefCell<Vec<ResourceKey>>,
}

impl<'a> Session<'a> {
    fn new(connection: &'a Connection) -> Session<'a> {
        Session { connection, changed: RefCell::default() }
    }
}

type Completion = Box<dyn FnOnce(Result<(), String>) + Send>;
/// A write; it is told when there is no transaction for it.
type Job = Box<dyn FnOnce(Result<&Connection, &str>) -> Ran + Send>;

/// A write that was run, and what the disk did to it.
struct Ran {
    completion: Completion,
    problem: Option<DiskProblem>,
}

/// The metadata database. Clones share it.
#[derive(Clone)]
pub struct Database {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    readers: Mutex<Vec<Connection>>,
    changes: Arc<Changes>,
}

impl Database {
    /// Opens the file, creating it and bringing its schema up to date.
    ///
    /// # Errors
    /// When the file cannot be opened, is from a newer release, or a migration fails.
    pub fn open(path: &Path) -> Result<Database> {
        let mut connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // FULL: the commit returns after the log is on the disk, so an acknowledged write survives a power cut.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", "ON")?;
        connection.busy_timeout(Duration::from_secs(30))?;
        connection.set_prepared_statement_cache_capacity(256);
        migrate(&mut connection)?;
        let (sender, receiver) = mpsc::channel();
        let writer = std::thread::Builder::new()
            .name("database-writer".into())
            .spawn(move || write_loop(&connection, &receiver))
            .map_err(Error::file("start the database writer"))?;
        Ok(Database {
            shared: Arc::new(Shared {
                path: path.to_owned(),
                jobs: Mutex::new(Some(sender)),
                writer: Mutex::new(Some(writer)),
                readers: Mutex::new(Vec::new()),
                changes: Arc::default(),
            }),
        })
    }

    /// Runs `change` in a transaction and returns after the commit is durable. Concurrent writes share commits; a failed
    /// one undoes only itself.
    ///
    /// # Errors
    /// What `change` returned, or [`Error::NotCommitted`].
    pub async fn write<T, F>(&self, change: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Session<'_>) -> Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let changes = self.shared.changes.clone();
        let job: Job = Box::new(move |connection| {
            let (result, changed) = match connection {
                Ok(connection) => in_savepoint(connection, change),
                Err(text) => (Err(Error::NotCommitted(text.to_owned())), Vec::new()),
            };
            let problem = result.as_ref().err().and_then(Error::disk_problem);
            let completion: Completion = Box::new(move |committed| {
                if committed.is_ok() && result.is_ok() {
                    changes.committed(&changed);
                }
                let result = match committed {
                    Ok(()) => result,
                    Err(text) => result.and(Err(Error::NotCommitted(text))),
                };
                // The caller may have gone away; the write stands all the same.
                let _ = answer.send(result);
            });
            Ran { completion, problem }
        });
        self.send(job)?;
        answered.await.unwrap_or_else(|_| Err(Error::NotCommitted("the writer stopped".into())))
    }

    /// Runs a short query on a read-only snapshot, on the calling thread: a few rows by their keys cost less than the way to another
    /// thread and back. Anything longer keeps others of that thread waiting, and belongs into [`Database::read`].
    ///
    /// # Errors
    /// What `query` returned.
    pub fn look<T>(&self, query: impl FnOnce(&Session<'_>) -> Result<T>) -> Result<T> {
        let connection = self.shared.reader()?;
        let result = query(&Session::new(&connection));
        self.shared.keep_reader(connection);
        result
    }

    /// Runs `query` on a read-only snapshot.
    ///
    /// # Errors
    /// What `query` returned.
    pub async fn read<T, F>(&self, query: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Session<'_>) -> Result<T> + Send + 'static,
    {
        let database = self.clone();
        tokio::task::spawn_blocking(move || database.look(query))
            .await
            .unwrap_or_else(|_| Err(Error::NotCommitted("a query panicked".into())))
    }

    /// Wakes `waker` after each commit that holds an event of the resource, until the answer is dropped. A waker keeps one
    /// wake-up for whoever looks later; look at the resource after this call, and no change is missed.
    pub fn watch(&self, key: &ResourceKey, waker: Arc<Notify>) -> ChangeWatch {
        self.shared.changes.watch(key.clone(), waker)
    }

    /// Changes after each commit that holds an event of any resource.
    pub fn watch_events(&self) -> watch::Receiver<u64> {
        self.shared.changes.any()
    }

    /// Finishes the writes under way, then stops the writer. Later writes fail.
    pub fn close(&self) {
        drop(lock(&self.shared.jobs).take());
        if let Some(writer) = lock(&self.shared.writer).take() {
            // A panicked writer has already answered its callers by dropping them.
            let _ = writer.join();
        }
    }

    fn send(&self, job: Job) -> Result<()> {
        let gone = || Error::NotCommitted("the database is closed".into());
        lock(&self.shared.jobs).as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())
    }
}

impl Shared {
    fn reader(&self) -> Result<Connection> {
        if let Some(connection) = lock(&self.readers).pop() {
            return Ok(connection);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(Duration::from_secs(30))?;
        connection.set_prepared_statement_cache_capacity(256);
        Ok(connection)
    }

    fn keep_reader(&self, connection: Connection) {
        let mut readers = lock(&self.readers);
        if readers.len() < KEPT_READERS {
            readers.push(connection);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A poisoned lock only says that another thread panicked; the value behind it is a plain list or handle.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn write_loop(connection: &Connection, jobs: &mpsc::Receiver<Job>) {
    while let Ok(first) = jobs.recv() {
        let begun = begin(connection);
        let open = begun.as_ref().map(|()| connection).map_err(String::as_str);
        let mut ran = vec![first(open)];
        // A disk that is full can make SQLite undo the whole transaction; what came after would not be in it.
        let is_open = || begun.is_ok() && !connection.is_autocommit();
        while is_open() && ran.len() < MOST_WRITES_PER_COMMIT {
            match jobs.try_recv() {
                Ok(job) => ran.push(job(open)),
                Err(_) => break,
            }
        }
        let committed = match begun {
            Ok(()) if connection.is_autocommit() => {
                let problem = ran.iter().find_map(|one| one.problem);
                Err(problem.map_or("the database undid the transaction", DiskProblem::text).to_owned())
            }
            Ok(()) => commit(connection),
            Err(text) => Err(text),
        };
        for one in ran {
            (one.completion)(committed.clone());
        }
    }
}

fn begin(connection: &Connection) -> Result<(), String> {
    let begun = failpoint::at(Point::DatabaseBegin)
        .map_err(Error::file("begin a transaction"))
        .and_then(|()| Ok(connection.execute_batch("BEGIN IMMEDIATE")?));
    begun.map_err(|error| error.commit_text())
}

fn commit(connection: &Connection) -> Result<(), String> {
    let committed = failpoint::at(Point::DatabaseCommit)
        .map_err(Error::file("commit"))
        .and_then(|()| Ok(connection.execute_batch("COMMIT")?));
    failpoint::pass(Point::DatabaseCommitted);
    committed.map_err(|error| {
        let text = error.commit_text();
        tracing::error!(error = text, "a commit failed");
        // The transaction may already be closed by the failure.
        let _ = connection.execute_batch("ROLLBACK");
        text
    })
}

/// The result of a write, and the resources whose events it appended.
fn in_savepoint<T>(
    connection: &Connection,
    change: impl FnOnce(&Session<'_>) -> Result<T>,
) -> (Result<T>, Vec<ResourceKey>) {
    let session = Session::new(connection);
    let result = write_in_savepoint(&session, change);
    (result, session.changed.into_inner())
}

fn write_in_savepoint<T>(session: &Session<'_>, change: impl FnOnce(&Session<'_>) -> Result<T>) -> Result<T> {
    let connection = session.connection;
    connection.execute_batch("SAVEPOINT one_write")?;
    // A panic in one write must not take the writer, and with it every later write, down.
    let result = catch_unwind(AssertUnwindSafe(|| change(session)))
        .unwrap_or_else(|_| Err(Error::NotCommitted("the write panicked".into())));
    if result.is_ok() {
        connection.execute_batch("RELEASE one_write")?;
    } else if let Err(error) = connection.execute_batch("ROLLBACK TO one_write; RELEASE one_write")
        && !connection.is_autocommit()
    {
        // Half a write must not be committed with the others.
        tracing::error!(%error, "a write could not be undone by itself; its whole transaction is");
        connection.execute_batch("ROLLBACK")?;
    }
    result
}

fn migrate(connection: &mut Connection) -> Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS schema_migrations (name TEXT PRIMARY KEY, position INTEGER NOT NULL)",
    )?;
    let done: Vec<String> = {
        let mut statement = transaction.prepare("SELECT name FROM schema_migrations ORDER BY position")?;
        statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?
    };
    for (position, name) in done.iter().enumerate() {
        if MIGRATIONS.get(position).is_none_or(|(known, _)| known != name) {
            return Err(Error::Invalid(format!(
                "the data directory was written by another release (schema step {name}); use that release or a newer one"
            )));
        }
    }
    for (position, (name, sql)) in MIGRATIONS.iter().enumerate().skip(done.len()) {
        transaction.execute_batch(sql)?;
        transaction.execute(
            "INSERT INTO schema_migrations (name, position) VALUES (?1, ?2)",
            rusqlite::params![name, position as i64],
        )?;
    }
    failpoint::at(Point::DatabaseMigrate).map_err(Error::file("update the schema"))?;
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_disk_fails_what_does_not_fit_and_nothing_later() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("test.db")).unwrap();
        let prepare = "CREATE TABLE t (number INTEGER, bytes BLOB); PRAGMA max_page_count = 200";
        database.write(move |session| Ok(session.connection.execute_batch(prepare)?)).await.unwrap();
        let insert = |number: i64, bytes: i64| {
            let database = database.clone();
            async move {
                let row = "INSERT INTO t VALUES (?1, zeroblob(?2))";
                let insert = move |session: &Session<'_>| {
                    Ok(session.connection.execute(row, (number, bytes)).map(drop)?)
                };
                database.write(insert).await
            }
        };
        // They come to the writer together and share transactions.
        let mut writes = Vec::new();
        for number in 0..40 {
            let bytes = if number % 5 == 4 { 10_000_000 } else { 10 };
            writes.push(tokio::spawn(insert(number, bytes)));
        }
        let mut acknowledged = Vec::new();
        for (number, write) in (0..).zip(writes) {
            match write.await.unwrap() {
                Ok(()) => acknowledged.push(number),
                Err(error) => assert_eq!(error.disk_problem(), Some(DiskProblem::Full), "{number}: {error}"),
            }
        }
        assert!(acknowledged.iter().all(|number| number % 5 != 4));
        database
            .write(|session| Ok(session.connection.execute_batch("PRAGMA max_page_count = 1000000")?))
            .await
            .unwrap();
        insert(100, 10_000_000).await.unwrap();
        acknowledged.push(100);
        let stored: Vec<i64> = database
            .read(|session| {
                let mut statement = session.connection.prepare("SELECT number FROM t ORDER BY number")?;
                Ok(statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
            })
            .await
            .unwrap();
        assert_eq!(stored, acknowledged);
    }
}
