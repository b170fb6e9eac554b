//! Exports of model cards: a PDF, and the same as one HTML page beside it.
//!
//! A card is small, so that the export is done when the request is answered; the job only remembers how it went.

use api::sagemaker::{
    CreateModelCardExportJob, CreateModelCardExportJobInput, CreateModelCardExportJobOutput,
    DescribeModelCardExportJob, DescribeModelCardExportJobInput, DescribeModelCardExportJobOutput,
    ListModelCardExportJobs, ListModelCardExportJobsInput, ListModelCardExportJobsOutput,
    ModelCardExportJobSummary,
};
use serde_json::{Value, json};
use store::objects::{Attributes, Condition};
use store::resources::{ListQuery, Resource, SortBy};

use super::kinds::{MODEL_CARD, MODEL_CARD_EXPORT_JOB};
use super::{fields, model_cards, records};
use crate::registry::card::{self, CardRecord};
use crate::registry::card_pdf;
use crate::{Cx, Error, Registry, Result};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<CreateModelCardExportJob, _, _, _>(create_model_card_export_job);
    registry.on::<DescribeModelCardExportJob, _, _, _>(describe_model_card_export_job);
    registry.on::<ListModelCardExportJobs, _, _, _>(list_model_card_export_jobs);
}

/// Rows on a page when the caller names no number, as in the service.
const DEFAULT_ROWS: i32 = 10;

async fn create_model_card_export_job(
    cx: Cx,
    input: CreateModelCardExportJobInput,
) -> Result<CreateModelCardExportJobOutput> {
    let honoured =
        ["ModelCardName", "ModelCardVersion", "ModelCardExportJobName", "OutputConfig.S3OutputPath"];
    fields::check(&cx.input, &honoured)?;
    let card = model_cards::find(&cx, &input.model_card_name).await?;
    let version = model_cards::version(&cx, &card, input.model_card_version).await?;
    let job = &input.model_card_export_job_name;
    let name = format!("{}/{job}", card.key.name);
    let key = records::key(&cx, MODEL_CARD_EXPORT_JOB, &name);
    let arn = format!("{}/export-job/{}", card.arn, job.to_lowercase());
    let taken = || Error::Conflict(format!("Model card export job {arn} already exists."));
    let present = key.clone();
    if cx.state.database.read(move |session| session.find_resource(&present)).await?.is_some() {
        return Err(taken());
    }
    let number = CardRecord::read(&version.document)?.version;
    let exported = export(&cx, &card, &version, job, &input.output_config.s3_output_path).await;
    let mut resource = records::new_resource(&cx, MODEL_CARD_EXPORT_JOB, &name, "Completed", json!({}));
    resource.arn = arn.clone();
    resource.spec["ModelCardName"] = Value::from(card.key.name.as_str());
    resource.spec["ModelCardVersion"] = Value::from(number);
    match exported {
        Ok(uri) => resource.document = json!({"ExportArtifacts": {"S3ExportArtifacts": uri}}),
        Err(problem) => {
            resource.status = "Failed".into();
            resource.document = json!({"FailureReason": crate::training::record::shorten(problem)});
        }
    }
    let (card_key, card_arn) = (card.key, card.arn);
    let written = cx.state.database.write(move |session| {
        // The card may have been deleted meanwhile, and its jobs with it.
        session.resource(&card_key)?;
        session.insert_resource(&resource)?;
        session.append_event(&resource.key, &resource.status, &resource.document, resource.created_at)
    });
    match written.await {
        Ok(()) => Ok(CreateModelCardExportJobOutput { model_card_export_job_arn: Some(arn) }),
        Err(store::Error::Exists { .. }) => Err(taken()),
        Err(store::Error::Missing { .. }) => Err(Error::not_found(MODEL_CARD, card_arn)),
        Err(other) => Err(other.into()),
    }
}

/// Writes both files, and answers where the PDF is.
async fn export(
    cx: &Cx,
    card: &Resource,
    version: &Resource,
    job: &str,
    output: &str,
) -> Result<String, String> {
    let (bucket, prefix) = crate::training::bucket_and_key(output)
        .ok_or_else(|| format!("S3OutputPath: {output:?} is not an S3 URI."))?;
    let record = CardRecord::read(&version.document).map_err(|error| error.to_string())?;
    let content: Value = serde_json::from_str(version.spec["Content"].as_str().unwrap_or_default())
        .map_err(|error| format!("The content of the card cannot be read: {error}."))?;
    let facts = [
        ("Version", record.version.to_string()),
        ("Status", version.status.clone()),
        ("Created by", record.created_by.arn.clone()),
        ("ARN", card.arn.clone()),
    ];
    let blocks = card::document(&format!("Model card: {}", card.key.name), &facts, &content);
    let prefix = prefix.trim_end_matches('/');
    let slash = if prefix.is_empty() { "" } else { "/" };
    let stem = format!("{prefix}{slash}{}-{}-{job}", card.key.name, record.version);
    let page = card::html(&blocks).into_bytes();
    let (pdf_key, html_key) = (format!("{stem}.pdf"), format!("{stem}.html"));
    for (key, bytes, kind) in
        [(&html_key, page, "text/html; charset=utf-8"), (&pdf_key, card_pdf::pdf(&blocks), "application/pdf")]
    {
        let put = put(cx, bucket, key, bytes, kind).await;
        put.map_err(|error| format!("s3://{bucket}/{key} could not be written: {error}."))?;
    }
    Ok(format!("s3://{bucket}/{pdf_key}"))
}

async fn put(cx: &Cx, bucket: &str, key: &str, bytes: Vec<u8>, kind: &str) -> store::Result<()> {
    let (account, objects) = (&cx.caller.account, &cx.state.objects);
    let mut incoming = objects.begin(account, bucket).await?;
    incoming.write(&bytes)?;
    let headers = [("content-type".to_owned(), kind.to_owned())].into();
    let attributes = Attributes { headers, ..Attributes::default() };
    objects.commit(account, bucket, key, incoming, attributes, Condition::default()).await?;
    Ok(())
}

async fn describe_model_card_export_job(
    cx: Cx,
    input: DescribeModelCardExportJobInput,
) -> Result<DescribeModelCardExportJobOutput> {
    let arn = input.model_card_export_job_arn.to_lowercase();
    let found = cx.state.database.read(move |session| session.find_resource_by_arn(&arn)).await?;
    let job = found
        .filter(|job| job.key.kind == MODEL_CARD_EXPORT_JOB)
        .filter(|job| job.key.account == cx.caller.account && job.key.region == cx.caller.region)
        .ok_or_else(|| Error::not_found(MODEL_CARD_EXPORT_JOB, input.model_card_export_job_arn))?;
    records::described(&job, described(&job))
}

fn described(job: &Resource) -> Value {
    json!({
        "ModelCardExportJobArn": job.arn,
        "Status": job.status,
        "CreatedAt": records::seconds(job.created_at),
        "LastModifiedAt": records::seconds(job.modified_at),
        "FailureReason": job.document["FailureReason"],
        "ExportArtifacts": job.document["ExportArtifacts"],
    })
}

async fn list_model_card_export_jobs(
    cx: Cx,
    input: ListModelCardExportJobsInput,
) -> Result<ListModelCardExportJobsOutput> {
    if input.model_card_version.is_some() {
        return Err(Error::field("ModelCardVersion of ListModelCardExportJobs"));
    }
    let card = model_cards::find(&cx, &input.model_card_name).await?;
    let query = ListQuery {
        name_contains: input.model_card_export_job_name_contains,
        below: Some(card.key.name.clone()),
        status: input.status_equals.map(|status| status.to_string()),
        created_after: input.creation_time_after.map(|at| at.as_millis()),
        created_before: input.creation_time_before.map(|at| at.as_millis()),
        sort_by: match input.sort_by.map(|column| column.to_string()).as_deref() {
            Some("Name") => SortBy::Name,
            Some("Status") => SortBy::Status,
            _ => SortBy::CreatedAt,
        },
        descending: input.sort_order.is_none_or(|order| order.as_str() == "Descending"),
        limit: input.max_results.unwrap_or(DEFAULT_ROWS).max(1) as usize,
        next_token: input.next_token,
        ..Default::default()
    };
    let page = cx.state.database.read(move |session| {
        session.list_resources(&card.key.account, &card.key.region, MODEL_CARD_EXPORT_JOB, &query)
    });
    let page = page.await?;
    let jobs = page.resources.iter().map(|job| records::described(job, described(job)));
    let jobs: Vec<ModelCardExportJobSummary> = jobs.collect::<Result<_>>()?;
    Ok(ListModelCardExportJobsOutput {
        model_card_export_job_summaries: Some(jobs),
        next_token: page.next_token,
    })
}
