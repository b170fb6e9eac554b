//! Folders of a job that are kept in S3: while it runs its checkpoints, restored before the start, TensorBoard's files, and the
//! outputs of processing jobs that want it so; the other outputs at its end.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use failpoint::Point;
use runner::tree::{Scan, Stamp, Tree};
use runner::workload::{Access, Mount};
use store::objects::{Export, ExportedObject, Object, Protection};

use super::attempt::Attempt;
use super::processing::{self, Upload};
use super::put::{Growing, PutError, Target};
use super::record::{FailureCard, HostRecord};
use super::{bucket_and_key, prepare};

/// Where checkpoints lie when the request does not say.
const CHECKPOINTS: &str = "/opt/ml/checkpoints";
/// Where an output of a processing job lies; CreateProcessingJob wants it said.
const OUTPUT: &str = "/opt/ml/processing/output";
/// Where TensorBoard's files lie when the request does not say.
const TENSOR_BOARD: &str = "/opt/ml/output/tensorboard";

/// Shortest pause between two looks at checkpoints.
const CHECKPOINT_PAUSE: Duration = Duration::from_secs(1);
/// Shortest pause between two looks at TensorBoard's files, which grow all the time.
const TENSOR_BOARD_PAUSE: Duration = Duration::from_secs(10);
/// A look may take this part of the time: large folders are looked at less often.
const IDLE_FACTOR: u32 = 10;

/// A file that is found replaced by another this often is not waited for: it may never be the same at two looks, and each that
/// comes into its place is whole.
const REPLACED_TIMES: u32 = 2;

/// Times that a failing put is tried, and the pause between them.
const TRIES: usize = 3;
const TRY_PAUSE: Duration = Duration::from_millis(500);

/// Objects of one page of a listing.
const PAGE: usize = 1_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Checkpoints,
    TensorBoard,
    Output(Upload),
}

/// A folder and the prefix that it is kept under.
struct Folder {
    kind: Kind,
    /// Host folder that the job cannot replace.
    base: PathBuf,
    /// The folder below it.
    relative: PathBuf,
    /// How the job sees it, when not in its `/opt/ml`.
    mount: Option<Mount>,
    bucket: String,
    prefix: String,
    /// The log of the host.
    log_stream: String,
    /// Whether other hosts keep a folder of their own under the same prefix.
    is_shared: bool,
    /// How the objects are encrypted.
    protection: Option<Protection>,
}

/// Restores checkpoints and makes the folders; returns what is to be mounted.
///
/// # Errors
/// A text for the failure card.
pub async fn restore(attempt: &Attempt<'_>, host: &HostRecord) -> Result<Vec<Mount>, String> {
    let mut mounts = Vec::new();
    for folder in folders(attempt, std::slice::from_ref(host)) {
        let path = folder.base.join(&folder.relative);
        tokio::fs::create_dir_all(&path)
            .await
            .map_err(|error| format!("InternalServerError: {}: {error}.", path.display()))?;
        if folder.kind == Kind::Checkpoints {
            folder.restore(attempt, &path).await?;
        } else {
            folder.target(attempt).check().await?;
        }
        mounts.extend(folder.mount);
    }
    Ok(mounts)
}

/// Keeps the folders of all hosts in S3 for as long as it is polled; returns only when a checkpoint cannot be stored, with a text
/// for the failure card.
pub async fn keep(attempt: &Attempt<'_>, hosts: &[HostRecord]) -> String {
    let mut folders = folders(attempt, hosts);
    folders.retain(|folder| folder.kind != Kind::Output(Upload::AtEnd));
    if folders.is_empty() {
        return std::future::pending().await;
    }
    let loops = folders.into_iter().map(|folder| Box::pin(keep_one(attempt, folder)));
    futures::future::select_all(loops).await.0
}

async fn keep_one(attempt: &Attempt<'_>, folder: Folder) -> String {
    let least = if folder.kind == Kind::TensorBoard { TENSOR_BOARD_PAUSE } else { CHECKPOINT_PAUSE };
    let mut sync = Sync::new(attempt, &folder);
    let mut has_complained = false;
    loop {
        let began_at = tokio::time::Instant::now();
        match sync.round(false).await {
            Ok(()) => has_complained = false,
            Err(text) if folder.kind == Kind::Checkpoints => return text,
            Err(text) => {
                if !std::mem::replace(&mut has_complained, true) {
                    sync.say(&format!("{text} It is tried again.")).await;
                }
            }
        }
        tokio::time::sleep(least.max(began_at.elapsed() * IDLE_FACTOR)).await;
    }
}

/// Puts what the ended job has left in its folders; returns the card of a job for which that cannot be done.
pub async fn finish(attempt: &Attempt<'_>, hosts: &[HostRecord]) -> Option<FailureCard> {
    let mut card = None;
    for folder in folders(attempt, hosts) {
        if folder.kind == Kind::Output(Upload::AtEnd) {
            continue;
        }
        if let Err(text) = Sync::new(attempt, &folder).round(true).await {
            let cause = if folder.kind == Kind::Checkpoints { "checkpoint" } else { "output" };
            card.get_or_insert_with(|| FailureCard::new(cause, text));
        }
    }
    card
}

/// Puts the outputs of an ended processing job that are stored at its end.
///
/// # Errors
/// A text for the failure card.
pub async fn finish_outputs(attempt: &Attempt<'_>, hosts: &[HostRecord]) -> Result<(), String> {
    for folder in folders(attempt, hosts) {
        if folder.kind == Kind::Output(Upload::AtEnd) {
            Sync::new(attempt, &folder).round(true).await?;
        }
    }
    Ok(())
}

fn folders(attempt: &Attempt<'_>, hosts: &[HostRecord]) -> Vec<Folder> {
    hosts.iter().flat_map(|host| folders_of(attempt, host, hosts.len() > 1)).collect()
}

fn folders_of(attempt: &Attempt<'_>, host: &HostRecord, is_shared: bool) -> Vec<Folder> {
    let id = &host.workload;
    let request = &attempt.request;
    let mut folders = Vec::new();
    let mut add = |kind, uri: &str, suffix: &str, local: Option<&str>, default: &str| {
        // CreateTrainingJob has checked it.
        let Some((bucket, key)) = bucket_and_key(uri) else { return };
        let local = local.map(|path| path.trim_end_matches('/')).filter(|path| !path.is_empty());
        let local = Path::new(local.unwrap_or(default));
        let (base, relative, mount) = match local.strip_prefix("/opt/ml") {
            Ok(relative) => (prepare::opt_ml(attempt.app, id), relative.to_owned(), None),
            Err(_) => {
                let name = match kind {
                    Kind::Checkpoints => "checkpoints".to_owned(),
                    Kind::TensorBoard => "tensorboard".to_owned(),
                    Kind::Output(_) => format!("output-{}", folders.len()),
                };
                let source = prepare::job_directory(attempt.app, id).join(name);
                let mount =
                    Mount { source: source.clone(), target: local.to_owned(), access: Access::ReadWrite };
                (source, PathBuf::new(), Some(mount))
            }
        };
        let key = format!("{}{suffix}", key.trim_end_matches('/'));
        let prefix = if key.is_empty() { key } else { format!("{}/", key.trim_start_matches('/')) };
        let (bucket, log_stream) = (bucket.to_owned(), host.log_stream.clone());
        // The outputs of several hosts are put over each other, as in the service.
        let is_shared = is_shared && !matches!(kind, Kind::Output(_));
        let protection = None;
        folders.push(Folder {
            kind,
            base,
            relative,
            mount,
            bucket,
            prefix,
            log_stream,
            is_shared,
            protection,
        });
    };
    if let Some(config) = &request.checkpoint_config {
        add(Kind::Checkpoints, &config.s3_uri, "", config.local_path.as_deref(), CHECKPOINTS);
    }
    if let Some(config) = &request.tensor_board_output_config {
        // Where the SDK looks for them.
        let suffix = format!("/{}/tensorboard-output", attempt.work.key.name);
        add(Kind::TensorBoard, &config.s3_output_path, &suffix, config.local_path.as_deref(), TENSOR_BOARD);
    }
    let outputs = attempt.kind.processing().map(processing::folders).unwrap_or_default();
    for output in &outputs {
        add(Kind::Output(output.upload), &output.uri, "", Some(&output.local_path), OUTPUT);
    }
    let of_outputs = folders.iter_mut().filter(|folder| matches!(folder.kind, Kind::Output(_)));
    for (folder, output) in of_outputs.zip(outputs) {
        folder.protection = output.protection;
    }
    folders
}

impl Folder {
    fn target<'a>(&self, attempt: &'a Attempt<'_>) -> Target<'a> {
        Target {
            app: attempt.app,
            account: &attempt.work.key.account,
            bucket: self.bucket.clone(),
            prefix: self.prefix.clone(),
            protection: self.protection.clone(),
        }
    }

    async fn restore(&self, attempt: &Attempt<'_>, path: &Path) -> Result<(), String> {
        let (objects, account) = (&attempt.app.objects, &attempt.work.key.account);
        let failed = |problem: String| {
            format!(
                "ClientError: the checkpoints under s3://{}/{} cannot be restored: {problem}.",
                self.bucket, self.prefix
            )
        };
        failpoint::at(Point::CheckpointRestore).map_err(|error| failed(error.to_string()))?;
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = objects.list_keys(account, &self.bucket, &self.prefix, after.as_deref(), PAGE).await;
            let page = page.map_err(|error| failed(error.with_cause()))?;
            after = page.last().filter(|_| page.len() == PAGE).map(|last| last.key.clone().into_bytes());
            let mut exported = Vec::new();
            for object in page.into_iter().filter(|object| !object.key.ends_with('/')) {
                let below = super::channels::plain_path(&object.key[self.prefix.len()..]);
                let below = below.ok_or_else(|| failed(format!("the key {:?} is no path", object.key)))?;
                exported.push(ExportedObject {
                    bucket: self.bucket.clone(),
                    object,
                    target: path.join(below),
                });
            }
            objects
                .export(account, exported, Export::Own)
                .await
                .map_err(|error| failed(error.with_cause()))?;
            if after.is_none() {
                return Ok(());
            }
        }
    }
}

impl Target<'_> {
    /// Finds out early that nothing could be put.
    async fn check(&self) -> Result<(), String> {
        let bucket = self.app.objects.bucket(self.account, &self.bucket).await;
        bucket
            .map(|_| ())
            .map_err(|error| format!("ClientError: s3://{}/{}: {error}.", self.bucket, self.prefix))
    }
}

/// What is known of a folder between two looks.
struct Sync<'a> {
    attempt: &'a Attempt<'a>,
    folder: &'a Folder,
    target: Target<'a>,
    /// Files as they are stored; `None` before the first look.
    stored: Option<HashMap<PathBuf, Stamp>>,
    /// Files as the last look saw them: one that has not changed since is whole.
    seen: HashMap<PathBuf, Stamp>,
    /// How often a file was another one than at the look before, since it was stored last.
    replaced: HashMap<PathBuf, u32>,
    complained: HashSet<PathBuf>,
}

impl<'a> Sync<'a> {
    fn new(attempt: &'a Attempt<'a>, folder: &'a Folder) -> Sync<'a> {
        let target = folder.target(attempt);
        let (seen, replaced, complained) = (HashMap::new(), HashMap::new(), HashSet::new());
        Sync { attempt, folder, target, stored: None, seen, replaced, complained }
    }

    /// Looks at the folder once and puts what is new; in the last round nobody writes any more.
    async fn round(&mut self, is_last: bool) -> Result<(), String> {
        let (base, relative) = (self.folder.base.clone(), self.folder.relative.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let Some(tree) = Tree::open(&base, &relative)? else { return Ok(None) };
            let scan = tree.scan()?;
            Ok::<_, std::io::Error>(Some((Arc::new(tree), scan)))
        });
        let looked = looked.await.map_err(|error| error.to_string());
        let looked =
            looked.and_then(|looked| looked.map_err(|error| error.to_string())).map_err(|error| {
                format!(
                    "{}the folder of s3://{}/{} cannot be read: {error}.",
                    self.subject(),
                    self.folder.bucket,
                    self.folder.prefix
                )
            })?;
        // Removed by the job; it may make it again.
        let Some((tree, scan)) = looked else { return Ok(()) };
        let stored = match self.stored.take() {
            Some(stored) => stored,
            None => self.compare(&scan).await?,
        };
        let stored = self.stored.insert(stored);
        for (path, stamp) in &scan.files {
            if stored.get(path) == Some(stamp) {
                continue;
            }
            let before = self.seen.get(path);
            let is_whole = is_last || before == Some(stamp);
            if before.is_some_and(|before| before.inode != stamp.inode) {
                *self.replaced.entry(path.clone()).or_default() += 1;
            }
            let is_replaced = self.replaced.get(path).is_some_and(|times| *times >= REPLACED_TIMES);
            let growing = match self.folder.kind {
                Kind::TensorBoard => Growing::SoFar,
                _ if !is_whole && is_replaced => Growing::Replaced,
                _ if !is_whole => continue,
                _ => Growing::Later,
            };
            match put(&self.target, &tree, path, *stamp, growing).await {
                Ok(()) => {
                    failpoint::pass(Point::CheckpointStored);
                    self.replaced.remove(path);
                    stored.insert(path.clone(), *stamp);
                }
                Err(PutError::Changing) if !is_last => {}
                Err(PutError::Changing) => {
                    return Err(format!(
                        "{}s3://{}/{}{} could not be stored: the file changed after the job had ended.",
                        self.subject(),
                        self.target.bucket,
                        self.target.prefix,
                        path.display()
                    ));
                }
                Err(PutError::Failed { text, .. }) => return Err(format!("{}{text}", self.subject())),
            }
        }
        for (path, reason) in &scan.left_out {
            if self.complained.insert(path.clone()) {
                let prefix = &self.target.prefix;
                self.say(&format!("{} {reason} and is not stored under {prefix}", path.display())).await;
            }
        }
        self.seen = scan.files.into_iter().collect();
        Ok(())
    }

    fn subject(&self) -> &'static str {
        match self.folder.kind {
            Kind::Checkpoints => "ClientError: the checkpoint ",
            Kind::TensorBoard => "ClientError: the TensorBoard output ",
            Kind::Output(_) => "ClientError: the output ",
        }
    }

    /// Which of the files are in S3 as they are: after a restart of the server, or of the job, little has to be put again.
    async fn compare(&self, scan: &Scan) -> Result<HashMap<PathBuf, Stamp>, String> {
        let mut stored = HashMap::new();
        // What lies at an output's place may be of an earlier job, with files of the same size and time.
        let since = match self.folder.kind {
            Kind::Output(_) => {
                let record = self.attempt.record().map_err(|error| error.to_string())?;
                record.attempts.run_started_at.unwrap_or(i64::MAX)
            }
            _ => i64::MIN,
        };
        for page in scan.files.chunks(PAGE) {
            let (known, keys): (Vec<_>, Vec<String>) =
                page.iter().filter_map(|file| Some((file, self.target.key(&file.0).ok()?))).unzip();
            let rows =
                self.target.app.objects.find_many(self.target.account, &self.target.bucket, keys).await;
            let rows = rows.map_err(|error| {
                format!("{}s3://{}/{}: {error}.", self.subject(), self.target.bucket, self.target.prefix)
            })?;
            // What another host stored later is not replaced by an older file of this one.
            let is_kept = |row: &Object, stamp: Stamp| {
                Target::is_stored(row, stamp) && row.modified_at >= since
                    || self.folder.is_shared && Target::is_newer(row, stamp)
            };
            let same = known
                .into_iter()
                .zip(rows)
                .filter(|((_, stamp), row)| row.as_ref().is_some_and(|row| is_kept(row, *stamp)));
            stored.extend(same.map(|((path, stamp), _)| (path.clone(), *stamp)));
        }
        Ok(stored)
    }

    async fn say(&self, text: &str) {
        self.attempt.log(&self.folder.log_stream).line(&format!("modelyard: {text}")).await;
    }
}

/// Puts a file, again when the disk had a bad moment.
async fn put(
    target: &Target<'_>,
    tree: &Arc<Tree>,
    path: &Path,
    stamp: Stamp,
    growing: Growing,
) -> Result<(), PutError> {
    let mut left = TRIES;
    loop {
        left -= 1;
        match target.put(tree, path, stamp, growing).await {
            Err(PutError::Failed { text, is_passing: true }) if left > 0 => {
                tracing::warn!(text, "a file of a job is put again");
                tokio::time::sleep(TRY_PAUSE).await;
            }
            done => return done,
        }
    }
}
