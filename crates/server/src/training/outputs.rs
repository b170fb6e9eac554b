//! What a job leaves: model.tar.gz and output.tar.gz, of all hosts together.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use failpoint::Point;
use runner::archive::create_merged_tar_gz;
use runner::tree::Tree;
use store::objects::Protection;

use super::attempt::Attempt;
use super::put::{Growing, PutError, Target};
use super::record::HostRecord;
use super::{bucket_and_key, prepare, sync};
use crate::sagemaker::lineage;

/// Compression level: the fastest costs a third of the default's time for a tenth more bytes.
const COMPRESSION_LEVEL: u32 = 1;

/// Uploads `/opt/ml/model` (when `with_model`), packed unless the request says otherwise, and `/opt/ml/output/data`
/// below the job's output path, those of all hosts as one; returns the URI of the model. Where hosts left different files
/// of one name, that of the first is kept, and its log says so.
///
/// # Errors
/// A text for the failure card.
pub async fn upload(
    attempt: &Attempt<'_>,
    hosts: &[HostRecord],
    with_model: bool,
) -> Result<Option<String>, String> {
    if attempt.kind.processing().is_some() {
        // Those of a job that failed are not stored, as in the service; what is stored continuously is there already.
        if with_model {
            sync::finish_outputs(attempt, hosts).await?;
            lineage::jobs::record_outputs(attempt.app, &attempt.work.key).await;
        }
        return Ok(None);
    }
    let job = &attempt.work.key.name;
    let base = attempt.request.output_data_config.s3_output_path.trim_end_matches('/').to_owned();
    let is_empty =
        |host: &HostRecord| is_empty(&prepare::opt_ml(attempt.app, &host.workload).join("output/data"));
    if !hosts.iter().all(is_empty) {
        put_archive(attempt, hosts, "output/data", &format!("{base}/{job}/output/output.tar.gz")).await?;
    }
    if !with_model {
        return Ok(None);
    }
    if attempt
        .request
        .output_data_config
        .compression_type
        .as_ref()
        .is_some_and(|kind| kind.as_str() == "NONE")
    {
        let uri = format!("{base}/{job}/output/model/");
        put_trees(attempt, hosts, "model", &uri).await?;
        return Ok(Some(uri));
    }
    let uri = format!("{base}/{job}/output/model.tar.gz");
    put_archive(attempt, hosts, "model", &uri).await?;
    Ok(Some(uri))
}

/// The key that the request wants for what the job leaves.
fn protection(attempt: &Attempt<'_>) -> Option<Protection> {
    let key = attempt.request.output_data_config.kms_key_id.clone().filter(|key| !key.is_empty())?;
    Some(Protection::Key { reference: Some(key), context: BTreeMap::new(), bucket_key: false })
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none())
}

/// Puts each file below a folder of the `/opt/ml` of all hosts.
async fn put_trees(
    attempt: &Attempt<'_>,
    hosts: &[HostRecord],
    folder: &str,
    uri: &str,
) -> Result<(), String> {
    let failed = |what: &dyn std::fmt::Display| format!("ClientError: Artifact upload failed: {uri}: {what}");
    let (bucket, prefix) = bucket_and_key(uri).ok_or_else(|| failed(&"not an S3 URI"))?;
    let target = Target {
        app: attempt.app,
        account: &attempt.work.key.account,
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        protection: protection(attempt),
    };
    let mut put: HashMap<PathBuf, (Arc<Tree>, &HostRecord)> = HashMap::new();
    for host in hosts {
        let (opt_ml, folder) = (prepare::opt_ml(attempt.app, &host.workload), PathBuf::from(folder));
        let looked = tokio::task::spawn_blocking(move || {
            let Some(tree) = Tree::open(&opt_ml, &folder)? else { return Ok(None) };
            let scan = tree.scan()?;
            Ok::<_, std::io::Error>(Some((Arc::new(tree), scan)))
        });
        let looked = looked.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        let Some((tree, scan)) = looked else { continue };
        let log = attempt.log(&host.log_stream);
        for (path, stamp) in scan.files {
            if let Some((other, earlier)) = put.get(&path) {
                let (one, other, name) = (tree.clone(), other.clone(), path.clone());
                let same = tokio::task::spawn_blocking(move || {
                    runner::archive::is_same(one.file(&name)?, other.file(&name)?)
                });
                if !same.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))? {
                    attempt.log(&hosts[0].log_stream).line(&conflict(&path, host, earlier)).await;
                }
                continue;
            }
            match target.put(&tree, &path, stamp, Growing::Later).await {
                Ok(()) => drop(put.insert(path, (tree.clone(), host))),
                Err(PutError::Changing) => {
                    return Err(failed(&format!("{} changed after the job had ended", path.display())));
                }
                Err(PutError::Failed { text, .. }) => {
                    return Err(format!("ClientError: Artifact upload failed: {text}"));
                }
            }
        }
        for (path, reason) in scan.left_out {
            log.line(&format!("modelyard: {} {reason} and was not uploaded.", path.display())).await;
        }
    }
    Ok(())
}

async fn put_archive(
    attempt: &Attempt<'_>,
    hosts: &[HostRecord],
    folder: &str,
    uri: &str,
) -> Result<(), String> {
    let failed = |what: &dyn std::fmt::Display| format!("ClientError: Artifact upload failed: {uri}: {what}");
    let (bucket, key) = bucket_and_key(uri).ok_or_else(|| failed(&"not an S3 URI"))?;
    let Some(first) = hosts.first() else { return Ok(()) };
    let name = key.rsplit('/').next().unwrap_or(key);
    let archive = prepare::job_directory(attempt.app, &first.workload).join(name);
    let opt_ml = |host: &HostRecord| prepare::opt_ml(attempt.app, &host.workload);
    // A host may have removed its folder; one that is not there on any host is an error, as the opening says.
    let is_there = |host: &&HostRecord| std::fs::symlink_metadata(opt_ml(host).join(folder)).is_ok();
    let mut hosts: Vec<&HostRecord> = hosts.iter().filter(is_there).collect();
    if hosts.is_empty() {
        hosts.push(first);
    }
    let sources: Vec<PathBuf> = hosts.iter().map(|host| opt_ml(host).join(folder)).collect();
    let target = archive.clone();
    let made = tokio::task::spawn_blocking(move || {
        let file = std::fs::File::create(&target).map_err(|error| error.to_string())?;
        create_merged_tar_gz(&sources, file, COMPRESSION_LEVEL).map_err(|error| error.to_string())
    });
    let made = made.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    let log = attempt.log(&first.log_stream);
    for warning in made.warnings {
        log.line(&format!("modelyard: {warning}")).await;
    }
    for one in made.conflicts {
        log.line(&conflict(&one.path, hosts[one.left_out], hosts[one.kept])).await;
    }
    failpoint::at(Point::OutputPacked).map_err(|error| failed(&error))?;
    let account = &attempt.work.key.account;
    let wish = protection(attempt);
    let put = attempt
        .app
        .objects
        .put_from_path(account, bucket, key, &archive, Some("application/gzip"), wish)
        .await;
    put.map(|_| ()).map_err(|error| failed(&error.with_cause()))
}

fn conflict(path: &Path, left_out: &HostRecord, kept: &HostRecord) -> String {
    format!(
        "modelyard: {} of {} is not what {} left under that name, and was not uploaded.",
        path.display(),
        left_out.name,
        kept.name
    )
}
