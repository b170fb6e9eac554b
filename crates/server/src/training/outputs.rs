//! What a job leaves: model.tar.gz, output.tar.gz, and the last values of its metrics.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use runner::archive::create_tar_gz;
use runner::contract::MetricScraper;
use runner::tree::Tree;

use super::attempt::Attempt;
use super::put::{Growing, PutError, Target};
use super::record::{FinalMetric, TrainingRecord};
use super::{bucket_and_key, prepare};

/// Compression level: the fastest costs a third of the default's time for a tenth more bytes.
const COMPRESSION_LEVEL: u32 = 1;

/// Uploads `/opt/ml/model` (when `with_model`), packed unless the request says otherwise, and `/opt/ml/output/data`
/// below the job's output path; returns the URI of the model.
///
/// # Errors
/// A text for the failure card.
pub async fn upload(attempt: &Attempt<'_>, id: &str, with_model: bool) -> Result<Option<String>, String> {
    let opt_ml = prepare::opt_ml(attempt.app, id);
    let job = &attempt.work.key.name;
    let base = attempt.request.output_data_config.s3_output_path.trim_end_matches('/').to_owned();
    let output = opt_ml.join("output/data");
    if !is_empty(&output) {
        put_archive(attempt, id, &output, &format!("{base}/{job}/output/output.tar.gz")).await?;
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
        put_tree(attempt, id, "model", &uri).await?;
        return Ok(Some(uri));
    }
    let uri = format!("{base}/{job}/output/model.tar.gz");
    put_archive(attempt, id, &opt_ml.join("model"), &uri).await?;
    Ok(Some(uri))
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none())
}

/// Puts each file below a folder of `/opt/ml`.
async fn put_tree(attempt: &Attempt<'_>, id: &str, folder: &str, uri: &str) -> Result<(), String> {
    let failed = |what: &dyn std::fmt::Display| format!("ClientError: Artifact upload failed: {uri}: {what}");
    let (bucket, prefix) = bucket_and_key(uri).ok_or_else(|| failed(&"not an S3 URI"))?;
    let target = Target {
        app: attempt.app,
        account: &attempt.work.key.account,
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
    };
    let (opt_ml, folder) = (prepare::opt_ml(attempt.app, id), PathBuf::from(folder));
    let looked = tokio::task::spawn_blocking(move || {
        let Some(tree) = Tree::open(&opt_ml, &folder)? else { return Ok(None) };
        let scan = tree.scan()?;
        Ok::<_, std::io::Error>(Some((Arc::new(tree), scan)))
    });
    let looked = looked.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    let Some((tree, scan)) = looked else { return Ok(()) };
    for (path, stamp) in &scan.files {
        match target.put(&tree, path, *stamp, Growing::Later).await {
            Ok(()) => {}
            Err(PutError::Changing) => {
                return Err(failed(&format!("{} changed after the job had ended", path.display())));
            }
            Err(PutError::Failed { text, .. }) => {
                return Err(format!("ClientError: Artifact upload failed: {text}"));
            }
        }
    }
    let stream = attempt.stream().await;
    for (path, reason) in scan.left_out {
        let line = format!("modelyard: {} {reason} and was not uploaded.", path.display());
        attempt.log(&stream).line(&line).await;
    }
    Ok(())
}

async fn put_archive(attempt: &Attempt<'_>, id: &str, directory: &Path, uri: &str) -> Result<(), String> {
    let failed = |what: &dyn std::fmt::Display| format!("ClientError: Artifact upload failed: {uri}: {what}");
    let (bucket, key) = bucket_and_key(uri).ok_or_else(|| failed(&"not an S3 URI"))?;
    let name = key.rsplit('/').next().unwrap_or(key);
    let archive = prepare::job_directory(attempt.app, id).join(name);
    let (source, target) = (directory.to_owned(), archive.clone());
    let warnings = tokio::task::spawn_blocking(move || {
        let file = std::fs::File::create(&target).map_err(|error| error.to_string())?;
        let made = create_tar_gz(&source, file, COMPRESSION_LEVEL).map_err(|error| error.to_string())?;
        Ok::<_, String>(made.warnings)
    });
    let warnings = warnings.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    let stream = attempt.stream().await;
    for warning in warnings {
        attempt.log(&stream).line(&format!("modelyard: {warning}")).await;
    }
    let account = &attempt.work.key.account;
    let put =
        attempt.app.objects.put_from_path(account, bucket, key, &archive, Some("application/gzip")).await;
    put.map(|_| ()).map_err(|error| failed(&error))
}

/// Reads the metrics of the job's definitions from its log.
pub async fn final_metrics(attempt: &Attempt<'_>) -> Vec<FinalMetric> {
    let specification = attempt.request.algorithm_specification.as_ref();
    let definitions: Vec<(String, String)> = specification
        .and_then(|specification| specification.metric_definitions.as_ref())
        .map(|definitions| definitions.iter().map(|one| (one.name.clone(), one.regex.clone())).collect())
        .unwrap_or_default();
    if definitions.is_empty() {
        return Vec::new();
    }
    let mut scraper = match MetricScraper::new(&definitions) {
        Ok(scraper) => scraper,
        // CreateTrainingJob refused what does not compile; a stored one from elsewhere gives no metrics.
        Err(error) => {
            tracing::warn!(job = attempt.work.key.name, %error, "metric definitions cannot be used");
            return Vec::new();
        }
    };
    let stream = attempt.stream().await;
    let fed = attempt.log(&stream).each(|at, line| scraper.feed(at, line)).await;
    if let Err(error) = fed {
        tracing::error!(job = attempt.work.key.name, error, "the log could not be read for metrics");
    }
    scraper
        .final_values()
        .into_iter()
        .map(|metric| FinalMetric { name: metric.0, value: metric.1, at: metric.2 })
        .collect()
}

impl Attempt<'_> {
    /// Name of the job's log stream; empty before there is one.
    pub async fn stream(&self) -> String {
        let key = self.work.key.clone();
        let read = self.app.database.read(move |session| session.resource(&key)).await;
        let record = read.and_then(|resource| TrainingRecord::read(&resource.document));
        record.ok().and_then(|record| record.log_stream).unwrap_or_default()
    }
}
