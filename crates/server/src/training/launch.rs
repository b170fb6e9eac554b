//! The start of all hosts of a job whose workloads are ready.

use runner::executor::can_be_held;

use super::attempt::Attempt;
use super::hosts;
use super::prepare::{Ready, Step};
use super::record::FailureCard;
use crate::app::App;

/// Starts all hosts, or none: when one cannot be started, the others are ended.
///
/// # Errors
/// When the database fails or the lease is lost.
pub async fn start(attempt: &Attempt<'_>, ready: &Ready) -> store::Result<Step<()>> {
    let (app, running) = (attempt.app, attempt.kind.running());
    let recorded = attempt.update(move |record, now_ms| record.run(running, now_ms));
    if ready.prepared.is_none() && ready.specs.iter().all(can_be_held) {
        // Sandboxes are made while the disk is waited for.
        let holding = futures::future::join_all(ready.specs.iter().map(|spec| app.executor.hold(spec)));
        let (recorded, held) = tokio::join!(recorded, holding);
        if recorded.is_err() {
            hosts::clean_up(app, &ready.hosts).await;
        }
        recorded?;
        if let Err(card) = all_or_none(attempt, ready, held).await? {
            return Ok(Err(card));
        }
        return all_or_none(attempt, ready, let_all_go(app, ready)).await;
    }
    recorded.await?;
    let started = futures::future::join_all(ready.specs.iter().map(|spec| async {
        match &ready.prepared {
            Some(prepared) => prepared.become_job(app, spec).await,
            None => app.executor.start(spec).await,
        }
    }));
    all_or_none(attempt, ready, started.await).await
}

/// Lets the hosts go that were held until now; as [`start`] in everything else.
///
/// # Errors
/// When the database fails or the lease is lost.
pub async fn let_go(attempt: &Attempt<'_>, ready: &Ready) -> store::Result<Step<()>> {
    // All in one: each transaction waits for the disk.
    let (starting, running) = (attempt.kind.starting(), attempt.kind.running());
    attempt
        .update(move |record, now_ms| {
            record.begin(starting, now_ms);
            record.run(running, now_ms);
        })
        .await?;
    all_or_none(attempt, ready, let_all_go(attempt.app, ready)).await
}

fn let_all_go(app: &App, ready: &Ready) -> Vec<runner::Result<()>> {
    ready.hosts.iter().map(|host| app.executor.let_go(&host.workload)).collect()
}

/// The card of a start that one of the hosts has failed at, once all of them are ended.
async fn all_or_none(
    attempt: &Attempt<'_>,
    ready: &Ready,
    started: Vec<runner::Result<()>>,
) -> store::Result<Step<()>> {
    let app = attempt.app;
    let failed = ready.hosts.iter().zip(started).find_map(|(host, started)| Some((host, started.err()?)));
    let Some((host, error)) = failed else { return Ok(Ok(())) };
    hosts::clean_up(app, &ready.hosts).await;
    let text = format!("InternalServerError: the workload could not be started: {error}");
    Ok(Err(Box::new(FailureCard {
        first_failed_host: Some(host.name.clone()),
        ..FailureCard::new("launch", text)
    })))
}
