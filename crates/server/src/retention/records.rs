//! Old rows: executions, jobs, events, uploads.

use std::sync::Arc;

use serde_json::json;
use store::Session;
use store::resources::ResourceKey;
use store::retention::{AgePosition, OldQuery, OldResource};

use super::{PAGE, Page, Step, encoded};
use crate::Result;
use crate::app::App;
use crate::events::ENVELOPED;
use crate::sagemaker::kinds::{PIPELINE_EXECUTION, PROCESSING_JOB, TRAINING_JOB, TRANSFORM_JOB};

/// Statuses of jobs that have ended.
const ENDED_JOBS: &[&str] = &["Completed", "Failed", "Stopped"];

/// Statuses of executions that have ended.
const ENDED_EXECUTIONS: &[&str] = &["Succeeded", "Failed", "Stopped"];

const JOB_KINDS: [&str; 3] = [TRAINING_JOB, PROCESSING_JOB, TRANSFORM_JOB];

/// A page of ended executions.
pub(super) async fn executions(app: &Arc<App>, page: Page, after: AgePosition) -> Result<Step> {
    let query = query(PIPELINE_EXECUTION, ENDED_EXECUTIONS, page, after);
    let rules = Rules {
        may_go: |session, key| Ok(!session.is_execution_wanted(key)?),
        remove: |session, key| session.delete_pipeline_execution(key),
    };
    let (step, next) = resources(app, page, query, rules).await?;
    Ok(Step { next: next.map(|next| encoded(&next)).transpose()?, ..step })
}

/// A page of ended jobs of one kind; the position says which.
pub(super) async fn jobs(app: &Arc<App>, page: Page, after: (usize, AgePosition)) -> Result<Step> {
    let (kind_at, after) = after;
    let Some(kind) = JOB_KINDS.get(kind_at).copied() else { return Ok(Step::default()) };
    let query = query(kind, ENDED_JOBS, page, after);
    crate::training::warm_pool::expire(app).await?;
    let rules = Rules {
        // The place of one with a pool waits for the next job.
        may_go: |session, key| Ok(!session.warm_pool(key)?.is_some_and(|pool| pool.is_available())),
        remove: |session, key| {
            session.delete_resource(key)?;
            session.delete_warm_pool(key)
        },
    };
    let (step, next) = resources(app, page, query, rules).await?;
    let next = match next {
        Some(next) => Some((kind_at, next)),
        None => Some((kind_at + 1, AgePosition::default())).filter(|(at, _)| *at < JOB_KINDS.len()),
    };
    Ok(Step { next: next.map(|next| encoded(&next)).transpose()?, ..step })
}

fn query(kind: &'static str, statuses: &'static [&'static str], page: Page, after: AgePosition) -> OldQuery {
    OldQuery { kind, statuses, before_ms: page.before_ms, after, limit: PAGE }
}

/// What the resources of a kind have of their own.
#[derive(Clone, Copy)]
struct Rules {
    /// Whether one that is old enough may go.
    may_go: fn(&Session<'_>, &ResourceKey) -> store::Result<bool>,
    /// Removes it with all that belongs to it.
    remove: fn(&Session<'_>, &ResourceKey) -> store::Result<()>,
}

/// A page of resources; those that may go do so in one transaction with their events.
async fn resources(
    app: &Arc<App>,
    page: Page,
    query: OldQuery,
    rules: Rules,
) -> Result<(Step, Option<AgePosition>)> {
    let statuses = query.statuses;
    let (now_ms, before_ms) = (app.clock.now_ms(), page.before_ms);
    let count = |gone: Vec<OldResource>| Step {
        items: gone.len() as u64,
        bytes: gone.iter().map(|one| one.bytes).sum(),
        ..Step::default()
    };
    if page.is_dry_run {
        let read = app.database.read(move |session| {
            let (found, next) = session.old_resources(&query)?;
            let mut gone = Vec::new();
            for one in found {
                if (rules.may_go)(session, &one.key)? {
                    gone.push(one);
                }
            }
            Ok((gone, next))
        });
        let (found, next) = read.await?;
        return Ok((count(found), next));
    }
    let (found, next) = app.database.read(move |session| session.old_resources(&query)).await?;
    if found.is_empty() {
        return Ok((Step::default(), next));
    }
    let removed = app.database.write(move |session| {
        let mut gone = Vec::new();
        for one in found {
            // It may have been deleted, retried or changed since it was read.
            let still = session.find_resource(&one.key)?.is_some_and(|resource| {
                resource.modified_at < before_ms && statuses.contains(&resource.status.as_str())
            });
            if still && (rules.may_go)(session, &one.key)? {
                (rules.remove)(session, &one.key)?;
                session.append_event(&one.key, "Deleted", &json!({"reason": "retention"}), now_ms)?;
                gone.push(one);
            }
        }
        Ok(gone)
    });
    Ok((count(removed.await?), next))
}

/// A page of the event log.
pub(super) async fn events(app: &Arc<App>, page: Page, after: Option<(i64, i64)>) -> Result<Step> {
    let after = after.unwrap_or((i64::MIN, i64::MIN));
    let limit = PAGE * 5;
    let read = app.database.read(move |session| session.old_events(page.before_ms, after, ENVELOPED, limit));
    let found = read.await?;
    let next = found.last().filter(|_| found.len() == limit).map(|last| (last.at, last.sequence));
    let step = Step {
        items: found.len() as u64,
        bytes: found.iter().map(|event| event.bytes).sum(),
        next: next.map(|next| encoded(&Some(next))).transpose()?,
        ..Step::default()
    };
    if !page.is_dry_run {
        app.database.write(move |session| session.delete_events(&found)).await?;
    }
    Ok(step)
}

/// A page of multipart uploads.
pub(super) async fn uploads(app: &Arc<App>, page: Page, after: String) -> Result<Step> {
    let found = app.objects.idle_uploads(page.before_ms, after, PAGE).await?;
    let next = found.last().filter(|_| found.len() == PAGE).map(|(upload, _)| upload.id.clone());
    let mut step = Step { next: next.map(|next| encoded(&next)).transpose()?, ..Step::default() };
    for (upload, bytes) in found {
        if !page.is_dry_run {
            match app.objects.abort_upload(&upload).await {
                Ok(()) => {}
                // Completed or given up meanwhile.
                Err(store::Error::Missing { .. }) => continue,
                Err(error) => return Err(error.into()),
            }
        }
        step.items += 1;
        step.bytes += bytes;
    }
    Ok(step)
}
