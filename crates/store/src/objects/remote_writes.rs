//! Writes to remote buckets: spooled to a local file, sent, and acknowledged when the remote store has acknowledged them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use failpoint::Point;
use md5::{Digest, Md5};
use tokio::task::JoinSet;

use super::files::Written;
use super::remote_rows::Transfer;
use super::remotes::{identity, is_sendable};
use super::{
    Assembly, Attributes, BUCKET_KIND, Bucket, Change, Condition, Object, ObjectStore, Part, Refusal, Remote,
    RemoteBucket, RemoteContent, UPLOAD_KIND, Upload, blocking, check_key, multipart,
};
use crate::error::{Error, Result};

/// Largest object that is sent in one request.
const ONE_REQUEST_BYTES: u64 = 64 << 20;

/// Smallest part of a larger one.
const PART_BYTES: u64 = 16 << 20;

/// Most parts, as in S3.
const MOST_PARTS: u64 = 10_000;

/// Parts that are sent at once.
const PARALLEL_PARTS: usize = 4;

/// Objects that are removed at once.
const PARALLEL_DELETES: usize = 16;

/// A write to a remote bucket, on its last steps.
pub(super) struct Departure {
    pub account: String,
    pub bucket: String,
    pub key: String,
    pub written: Written,
    pub attributes: Attributes,
    pub change: Change,
    pub condition: Condition,
}

/// A spooled file, which goes with this. What a crash leaves is swept by the next start.
struct Spooled(PathBuf);

impl Drop for Spooled {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What a remote bucket does not take.
pub(super) fn check_remote_write(key: &str, attributes: &Attributes) -> Result<()> {
    check_key(key)?;
    if !is_sendable(key) {
        return Err(Refusal::OfRemote("no key may have `.` or `..` between its slashes").into());
    }
    if !attributes.tags.is_empty() {
        return Err(Refusal::OfRemote("tags of its objects are not kept; leave the tagging out").into());
    }
    Ok(())
}

impl ObjectStore {
    /// A bucket that still is a remote one, which can be written to.
    async fn writable(&self, account: &str, name: &str) -> Result<(Bucket, Remote, Arc<dyn RemoteBucket>)> {
        self.writable_one(self.bucket(account, name).await?)
    }

    fn writable_one(&self, bucket: Bucket) -> Result<(Bucket, Remote, Arc<dyn RemoteBucket>)> {
        let missing = || Error::Missing { kind: BUCKET_KIND.into(), name: bucket.name.clone() };
        let remote = bucket.remote.clone().ok_or_else(missing)?;
        remote.check_writable()?;
        let reached = self.reach(&bucket, &remote)?;
        Ok((bucket, remote, reached))
    }

    /// Holds back other writes with a condition, and checks this one's.
    async fn alone(
        &self,
        bucket: &Bucket,
        remote: &Remote,
        key: &str,
        condition: &Condition,
    ) -> Result<Option<tokio::sync::MutexGuard<'_, ()>>> {
        if *condition == Condition::default() {
            return Ok(None);
        }
        let guard = self.remotes.conditional.lock().await;
        condition.check(self.remote_object(bucket, remote, key).await?.as_ref())?;
        Ok(Some(guard))
    }

    /// Makes a finished file the object of a key. Must run detached.
    pub(super) async fn depart(&self, departure: Departure) -> Result<Object> {
        let Departure { account, bucket, key, written, attributes, change, condition } = departure;
        let spooled = Spooled(written.file);
        check_remote_write(&key, &attributes)?;
        let (bucket, remote, reached) = self.writable(&account, &bucket).await?;
        let _alone = self.alone(&bucket, &remote, &key, &condition).await?;
        let content =
            RemoteContent { file: spooled.0.clone(), start: 0, size: written.size, md5: written.etag };
        let etag = match content.size {
            0..=ONE_REQUEST_BYTES => reached.put(&key, &content, &attributes, &condition).await?,
            _ => self.send_in_parts(&bucket.name, &reached, &key, &content, &attributes, &condition).await?,
        };
        let object = Object {
            path: identity(&etag, content.size),
            key,
            size: content.size,
            etag,
            parts: None,
            attributes,
            modified_at: self.now_ms(),
        };
        self.note(bucket, object, change, None).await
    }

    /// Keeps what the remote store does not, tells of the change, and ends the upload it came from.
    async fn note(
        &self,
        bucket: Bucket,
        object: Object,
        change: Change,
        ends: Option<Upload>,
    ) -> Result<Object> {
        failpoint::pass(Point::RemoteWritten);
        let (telling, stored) = (self.clone(), object.clone());
        self.database
            .write(move |session| {
                session.owned_bucket(&bucket.account, &bucket.name)?;
                session.put_folder_file(&bucket.name, &stored)?;
                if let Some(upload) = ends {
                    session.delete_upload(&upload.id)?;
                }
                telling.tell(session, &bucket, &stored, change)
            })
            .await?;
        Ok(object)
    }

    async fn send_in_parts(
        &self,
        bucket: &str,
        reached: &Arc<dyn RemoteBucket>,
        key: &str,
        content: &RemoteContent,
        attributes: &Attributes,
        condition: &Condition,
    ) -> Result<String> {
        let id = reached.create_upload(key, attributes).await?;
        let transfer = Transfer { remote_id: id.clone(), bucket: bucket.to_owned(), key: key.to_owned() };
        self.database.write(move |session| session.insert_transfer(&transfer)).await?;
        let sent = async {
            let parts = send_parts(reached, key, &id, content).await?;
            reached.complete_upload(key, &id, &parts, condition).await
        };
        let sent = sent.await;
        // Where it cannot be given up now, the next start does so.
        if sent.is_ok() || reached.abort_upload(key, &id).await.is_ok() {
            self.database.write(move |session| session.delete_transfer(&id)).await?;
        }
        sent
    }

    /// Gives up the uploads that an earlier server had begun by itself.
    pub(super) async fn abort_stray_transfers(&self) {
        let transfers = match self.database.read(|session| session.transfers()).await {
            Ok(transfers) => transfers,
            Err(error) => {
                return tracing::warn!(%error, "unfinished transfers to remote buckets are not known");
            }
        };
        for Transfer { remote_id, bucket, key } in transfers {
            let name = bucket.clone();
            let aborted = async {
                let bucket = self.database.read(move |session| session.bucket_named(&name)).await?;
                let (_, _, reached) = self.writable_one(bucket)?;
                reached.abort_upload(&key, &remote_id).await?;
                self.database.write(move |session| session.delete_transfer(&remote_id)).await
            };
            if let Err(error) = aborted.await {
                tracing::warn!(bucket, %error, "an unfinished transfer was not given up; the next start tries again");
            }
        }
    }

    /// Removes objects; each has its own result.
    pub(super) async fn remove_remote(
        &self,
        bucket: Bucket,
        keys: Vec<(String, Condition)>,
    ) -> Result<Vec<Result<bool>>> {
        let (bucket, remote, reached) = self.writable_one(bucket)?;
        let mut results: Vec<Result<bool>> = keys.iter().map(|_| Ok(false)).collect();
        let mut gone = Vec::new();
        let mut left = keys.into_iter().enumerate();
        let mut removing = JoinSet::new();
        loop {
            while removing.len() < PARALLEL_DELETES
                && let Some((at, (key, condition))) = left.next()
            {
                let (store, bucket, remote, reached) =
                    (self.clone(), bucket.clone(), remote.clone(), reached.clone());
                removing.spawn(async move {
                    let removed = async {
                        let _alone = store.alone(&bucket, &remote, &key, &condition).await?;
                        let present = store.remote_object(&bucket, &remote, &key).await?;
                        condition.check(present.as_ref())?;
                        if present.is_some() {
                            reached.delete(&key).await?;
                        }
                        Ok::<_, Error>(present)
                    };
                    (at, removed.await)
                });
            }
            let Some(done) = removing.join_next().await else { break };
            let (at, removed) = done.map_err(|_| Error::NotCommitted("a deletion panicked".into()))?;
            results[at] = removed.map(|object| {
                let is_gone = object.is_some();
                gone.extend(object);
                is_gone
            });
        }
        failpoint::pass(Point::RemoteWritten);
        let telling = self.clone();
        self.database
            .write(move |session| {
                for object in &gone {
                    session.delete_folder_file(&bucket.name, &object.key)?;
                    telling.tell(session, &bucket, object, Change::Deleted)?;
                }
                Ok(())
            })
            .await?;
        Ok(results)
    }

    /// Sends a finished file as a part of an upload. Must run detached.
    pub(super) async fn put_remote_part(
        &self,
        upload: &Upload,
        remote_id: &str,
        number: u32,
        written: Written,
        checksums: BTreeMap<String, String>,
    ) -> Result<Part> {
        let spooled = Spooled(written.file);
        let (_, _, reached) = self.writable_one(self.bucket_of(upload).await?)?;
        let content =
            RemoteContent { file: spooled.0.clone(), start: 0, size: written.size, md5: written.etag };
        let etag = reached.put_part(&upload.key, remote_id, number, &content).await?;
        let modified_at = self.now_ms();
        let part = Part { number, size: content.size, etag, checksums, modified_at, path: PathBuf::new() };
        failpoint::pass(Point::RemoteWritten);
        let (stored, upload) = (part.clone(), upload.clone());
        self.database
            .write(move |session| {
                session.upload(&upload.bucket, &upload.key, &upload.id)?;
                session.put_part(&upload.id, &stored)
            })
            .await?;
        Ok(part)
    }

    /// Joins the parts of an upload. Must run detached.
    pub(super) async fn complete_remote(
        &self,
        account: &str,
        upload: Upload,
        remote_id: &str,
        parts: Vec<Part>,
        checksums: BTreeMap<String, String>,
        condition: Condition,
    ) -> Result<Object> {
        let (bucket, remote, reached) = self.writable(account, &upload.bucket).await?;
        let named: Vec<(u32, String)> = parts.iter().map(|part| (part.number, part.etag.clone())).collect();
        let size = parts.iter().map(|part| part.size).sum();
        let _alone = self.alone(&bucket, &remote, &upload.key, &condition).await?;
        let etag = match reached.complete_upload(&upload.key, remote_id, &named, &condition).await {
            // It was completed before, and the server was killed before it could write so down.
            Err(Error::Missing { kind, name }) if kind == UPLOAD_KIND => {
                let etag = multipart::joined_etag(&parts);
                let present = self.remote_object(&bucket, &remote, &upload.key).await?;
                if !present.is_some_and(|object| object.etag == etag && object.size == size) {
                    return Err(Error::Missing { kind, name });
                }
                etag
            }
            completed => completed?,
        };
        let assembly = Assembly::of(&upload.id, parts.iter().map(|part| part.size));
        let object = Object {
            path: identity(&etag, size),
            key: upload.key.clone(),
            size,
            etag,
            parts: Some(parts.len() as u32),
            attributes: Attributes { checksums, assembly: Some(assembly), ..upload.attributes.clone() },
            modified_at: self.now_ms(),
        };
        self.note(bucket, object, Change::Completed, Some(upload)).await
    }

    /// Gives an upload up. Must run detached.
    pub(super) async fn abort_remote(&self, upload: &Upload, remote_id: &str) -> Result<()> {
        let (_, _, reached) = self.writable_one(self.bucket_of(upload).await?)?;
        reached.abort_upload(&upload.key, remote_id).await?;
        failpoint::pass(Point::RemoteWritten);
        let id = upload.id.clone();
        self.database.write(move |session| session.delete_upload(&id)).await
    }

    async fn bucket_of(&self, upload: &Upload) -> Result<Bucket> {
        let name = upload.bucket.clone();
        self.database.read(move |session| session.bucket_named(&name)).await
    }
}

/// Sends a file part by part, some at a time.
async fn send_parts(
    reached: &Arc<dyn RemoteBucket>,
    key: &str,
    upload: &str,
    content: &RemoteContent,
) -> Result<Vec<(u32, String)>> {
    let part_bytes = PART_BYTES.max(content.size.div_ceil(MOST_PARTS));
    let mut starts = (content.start..content.start + content.size).step_by(part_bytes as usize).zip(1..);
    let mut parts = Vec::new();
    let mut sending = JoinSet::new();
    loop {
        while sending.len() < PARALLEL_PARTS
            && let Some((start, number)) = starts.next()
        {
            let size = part_bytes.min(content.start + content.size - start);
            let (reached, key, upload) = (reached.clone(), key.to_owned(), upload.to_owned());
            let file = content.file.clone();
            sending.spawn(async move {
                let path = file.clone();
                let md5 = blocking(move || md5_of_range(&path, start, size)).await?;
                let part = RemoteContent { file, start, size, md5 };
                Ok::<_, Error>((number, reached.put_part(&key, &upload, number, &part).await?))
            });
        }
        let Some(sent) = sending.join_next().await else { break };
        parts.push(sent.unwrap_or_else(|_| Err(Error::NotCommitted("sending a part panicked".into())))?);
    }
    parts.sort_unstable();
    Ok(parts)
}

fn md5_of_range(path: &Path, start: u64, size: u64) -> Result<[u8; 16]> {
    let digest = || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(start))?;
        let (mut source, mut digest) = (file.take(size), Md5::new());
        let mut buffer = vec![0; 1 << 20];
        loop {
            match source.read(&mut buffer)? {
                0 => return Ok(digest.finalize().into()),
                read => digest.update(&buffer[..read]),
            }
        }
    };
    digest().map_err(Error::file(format!("read {}", path.display())))
}
