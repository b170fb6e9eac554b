//! Input channels: S3 objects become files below `/opt/ml/input/data/CHANNEL`, or a stream in `CHANNEL_EPOCH`.

mod augmented;
mod manifest;
mod objects;
mod uri;

use std::path::{Path, PathBuf};

use api::sagemaker::{Channel, S3DataSource};
use runner::feed::plan::{Part, PlanWriter};
use runner::feed::{Feed, Shard};
use runner::workload::{Access, Mount};
use store::objects::{Export, ExportedObject, Object, ObjectStore};

use objects::{Found, Objects};
pub use uri::{plain_path, split_uri};

/// A `File` channel up to this size is copied, so that the job may change what it finds, as in the service.
const COPIED_BYTES: u64 = 64 << 20;

/// Files of a stream per folder.
const FILES_PER_FOLDER: u64 = 1_000;

/// The host folder of an `/opt/ml` and what belongs to it.
pub struct Place<'a> {
    /// Folder of the job's files on this machine.
    pub directory: &'a Path,
    /// What the job sees as `/opt/ml`.
    pub opt_ml: &'a Path,
    /// Which host of the job this is.
    pub host: Shard,
    /// Channel that is always copied: it holds the job's source, which is read before the job starts, or others lie in it.
    pub source_channel: Option<String>,
    /// Where in the job the channel lies; in `/opt/ml/input/data` under its name when it is left out.
    pub folder: Option<&'a Path>,
}

/// An object of a data source.
pub struct Listed {
    /// Its bucket.
    pub bucket: String,
    /// Its row.
    pub object: Object,
    /// Its path below the data source.
    pub path: PathBuf,
}

/// Gives the objects of a prefix or a manifest, page by page.
///
/// # Errors
/// A text for the failure card; a missing object is named.
pub async fn list_objects(
    objects: &ObjectStore,
    account: &str,
    data_type: &str,
    uri: &str,
    mut take: impl FnMut(Vec<Listed>) -> Result<(), String>,
) -> Result<(), String> {
    let source = serde_json::json!({"S3DataType": data_type, "S3Uri": uri});
    let source: S3DataSource = serde_json::from_value(source).map_err(|error| error.to_string())?;
    let mut listed = Objects::of(objects, account, &source).await?;
    loop {
        let page = listed.next().await?;
        if page.is_empty() {
            return Ok(());
        }
        take(
            page.into_iter().map(|Found { bucket, object, path }| Listed { bucket, object, path }).collect(),
        )?;
    }
}

/// What a job needs to reach its channels.
#[derive(Default)]
pub struct Channels {
    /// Channels that are shown where they lie.
    pub mounts: Vec<Mount>,
    /// Channels that are sent.
    pub feeds: Vec<Feed>,
}

/// How a channel is read: its own mode, else that of the job.
pub fn input_mode(channel: &Channel, of_job: &str) -> String {
    channel.input_mode.as_ref().map_or_else(|| of_job.to_owned(), ToString::to_string)
}

/// Whether each host gets a part of the objects.
fn is_sharded(source: &S3DataSource) -> bool {
    source.s3_data_distribution_type.as_ref().is_some_and(|kind| kind.as_str() == "ShardedByS3Key")
}

/// Readies all channels of a job for one host.
///
/// # Errors
/// A text for the failure card; a missing object is named.
pub async fn prepare(
    objects: &ObjectStore,
    account: &str,
    channels: &[Channel],
    mode_of_job: &str,
    place: &Place<'_>,
) -> Result<Channels, String> {
    let mut prepared = Channels::default();
    for channel in channels {
        let Some(source) = &channel.data_source.s3_data_source else { continue };
        let one = OneChannel { objects, account, channel, source, place };
        match input_mode(channel, mode_of_job).as_str() {
            "Pipe" => prepared.feeds.push(one.as_stream().await?),
            mode => prepared.mounts.extend(one.as_files(mode == "FastFile").await?),
        }
    }
    Ok(prepared)
}

struct OneChannel<'a> {
    objects: &'a ObjectStore,
    account: &'a str,
    channel: &'a Channel,
    source: &'a S3DataSource,
    place: &'a Place<'a>,
}

impl OneChannel<'_> {
    fn name(&self) -> &str {
        &self.channel.channel_name
    }

    /// Where the channel lies: as the job sees it, and on this machine.
    fn folder(&self) -> (PathBuf, PathBuf) {
        let target = self
            .place
            .folder
            .map_or_else(|| Path::new("/opt/ml/input/data").join(self.name()), Path::to_path_buf);
        let below = target.strip_prefix("/opt/ml").unwrap_or(&target);
        let source = self.place.opt_ml.join(below);
        (target, source)
    }

    /// Puts the objects into a folder of the job, or shows them to it where they lie.
    async fn as_files(&self, is_fast_file: bool) -> Result<Option<Mount>, String> {
        let mut found = Objects::of(self.objects, self.account, self.source).await?;
        let mut page = found.next().await?;
        let bytes: u64 = page.iter().map(|one| one.object.size).sum();
        let is_source = self.place.source_channel.as_deref() == Some(self.name());
        let is_copied = is_source || !is_fast_file && bytes <= COPIED_BYTES && found.is_exhausted();
        let (target, own) = self.folder();
        let (folder, how) = if is_copied {
            (own, Export::Own)
        } else {
            (self.place.directory.join("channels").join(self.name()), Export::Shared)
        };
        make_folder(&folder).await?;
        let mut index = 0;
        while !page.is_empty() {
            let kept = self.own_part(page, &mut index);
            let exported = kept.into_iter().map(|one| one.at(folder.join(&one.path))).collect();
            self.export(exported, how).await?;
            page = found.next().await?;
        }
        Ok((!is_copied).then_some(Mount { source: folder, target, access: Access::ReadOnly }))
    }

    /// The objects that this host gets; `index` counts those of all hosts.
    fn own_part(&self, page: Vec<Found>, index: &mut usize) -> Vec<Found> {
        let Shard { host, hosts } = self.place.host;
        let first = *index;
        *index += page.len();
        if !is_sharded(self.source) {
            return page;
        }
        // The page begins in the middle of a round.
        runner::feed::shard(page, (host + hosts - first % hosts) % hosts, hosts)
    }

    /// Writes down what is to be sent.
    async fn as_stream(&self) -> Result<Feed, String> {
        let folder = self.place.directory.join("feeds").join(self.name());
        let files = folder.join("files");
        make_folder(&files).await?;
        let plan = folder.join("plan");
        let mut writer = PlanWriter::create(&plan).map_err(plan_failed)?;
        if self.source.s3_data_type.as_str() == "AugmentedManifestFile" {
            augmented::plan(self.objects, self.account, self.source, &files, &mut writer).await?;
        } else {
            let mut found = Objects::of(self.objects, self.account, self.source).await?;
            loop {
                let page = found.next().await?;
                if page.is_empty() {
                    break;
                }
                let mut exported = Vec::with_capacity(page.len());
                for one in page {
                    let path = numbered(writer.entries());
                    let name = format!("s3://{}/{}", one.bucket, one.object.key);
                    writer.entry(&[Part::File { path: path.clone(), name }]).map_err(plan_failed)?;
                    exported.push(one.at(files.join(path)));
                }
                self.export(exported, Export::Shared).await?;
            }
        }
        writer.finish().map_err(plan_failed)?;
        let (_, own) = self.folder();
        let directory = own.parent().unwrap_or(self.place.opt_ml).to_owned();
        make_folder(&directory).await?;
        Ok(Feed {
            name: own
                .file_name()
                .map_or_else(|| self.name().to_owned(), |name| name.to_string_lossy().into_owned()),
            directory,
            plan,
            files,
            record_io: self
                .channel
                .record_wrapper_type
                .as_ref()
                .is_some_and(|kind| kind.as_str() == "RecordIO"),
            gunzip: self.channel.compression_type.as_ref().is_some_and(|kind| kind.as_str() == "Gzip"),
            shuffle_seed: self.channel.shuffle_config.as_ref().map(|shuffle| shuffle.seed),
            shard: is_sharded(self.source).then_some(self.place.host),
        })
    }

    async fn export(&self, exported: Vec<ExportedObject>, how: Export) -> Result<(), String> {
        let exported = self.objects.export(self.account, exported, how).await;
        exported.map_err(|error| export_failed(self.name(), &error))
    }
}

/// Where the file of a number lies below the folder of a stream's files.
fn numbered(number: u64) -> String {
    format!("{}/{}", number / FILES_PER_FOLDER, number % FILES_PER_FOLDER)
}

fn export_failed(channel: &str, error: &store::Error) -> String {
    match error {
        store::Error::Missing { name, .. } => format!(
            "ClientError: the object {name:?} of the channel {channel:?} was deleted while the job was being prepared."
        ),
        store::Error::Invalid(text) => format!("ClientError: the channel {channel:?}: {text}."),
        other => {
            format!("InternalServerError: the channel {channel:?}: {}.", other.with_cause())
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err by name")]
fn plan_failed(error: std::io::Error) -> String {
    format!("InternalServerError: a channel could not be written down: {error}.")
}

async fn make_folder(folder: &Path) -> Result<(), String> {
    let made = tokio::fs::create_dir_all(folder).await;
    made.map_err(|error| format!("InternalServerError: {}: {error}.", folder.display()))?;
    // The job's user has to enter it, whatever the umask says.
    let open = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    let opened = tokio::fs::set_permissions(folder, open).await;
    opened.map_err(|error| format!("InternalServerError: {}: {error}.", folder.display()))
}

/// What to tell the author of a script that tried to write to a channel that is shown where it lies; `tail` is the end of
/// the job's log.
pub fn read_only_hint(tail: &[String]) -> Option<&'static str> {
    let refusals = ["Read-only file system", "Permission denied", "Operation not permitted"];
    let is_about_channel = |line: &String| {
        let is_input = line.contains("/opt/ml/input/data/") || line.contains("/opt/ml/processing/");
        is_input && refusals.iter().any(|refusal| line.contains(refusal))
    };
    tail.iter().any(is_about_channel).then_some(
        " A channel that is large, or in FastFile mode, is shown to the job where it lies and is read-only: write to another \
         folder, for example /opt/ml/output/intermediate or /tmp.",
    )
}

impl Found {
    fn at(&self, target: PathBuf) -> ExportedObject {
        ExportedObject { bucket: self.bucket.clone(), object: self.object.clone(), target }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_is_for_channels_alone() {
        let line = |text: &str| vec!["Traceback".to_owned(), text.to_owned()];
        let error = "OSError: [Errno 30] Read-only file system: '/opt/ml/input/data/train/cache'";
        assert!(read_only_hint(&line(error)).is_some());
        assert!(read_only_hint(&line("OSError: [Errno 30] Read-only file system: '/usr/x'")).is_none());
    }

    #[test]
    fn numbers_become_paths() {
        assert_eq!((numbered(0), numbered(1_999)), ("0/0".to_owned(), "1/999".to_owned()));
    }
}
