//! The task that brings experiments from status to status: each transition is one transaction, and whatever lies between two of them can
//! be done again.

use std::sync::Arc;
use std::time::Duration;

use store::resources::{Resource, ResourceKey};

use super::deployment::{self, Progress};
use super::record::{
    CANCELLED, COMPLETED, CREATED, ExperimentRecord, RUNNING, STARTING, STOPPING, Stop, UPDATING, change,
    is_over, rival,
};
use super::rules::Outcome;
use crate::app::App;
use crate::endpoints::EndpointRecord;
use crate::sagemaker::kinds::INFERENCE_EXPERIMENT;
use crate::training::record::shorten;

/// Pause while an endpoint is being changed.
const BUSY_PAUSE: Duration = Duration::from_millis(200);
/// Pause while experiments wait for a time or run: the clock may be set, and the machine may sleep.
const CLOCK_PAUSE: Duration = Duration::from_secs(1);
/// Pause while there is none; who makes one rings.
const IDLE_PAUSE: Duration = Duration::from_secs(60);

/// Drives experiments for as long as the process state lives.
pub fn start(app: &Arc<App>) {
    let weak = Arc::downgrade(app);
    let bell = app.inference_experiments.clone();
    tokio::spawn(async move {
        loop {
            let Some(app) = weak.upgrade() else { return };
            let pause = match look(&app).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::error!(%error, "inference experiments could not be driven; it is tried again");
                    CLOCK_PAUSE
                }
            };
            drop(app);
            tokio::select! {
                () = bell.rung() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    });
}

/// Takes one step of each experiment, and says how long nothing else is to be done.
async fn look(app: &Arc<App>) -> crate::Result<Duration> {
    let all = app.database.read(|session| session.all_resources(INFERENCE_EXPERIMENT)).await?;
    let mut pause = IDLE_PAUSE;
    for experiment in all.into_iter().filter(|experiment| !is_over(&experiment.status)) {
        let next = match step(app, &experiment).await {
            Ok(next) => next,
            Err(error) => {
                tracing::error!(experiment = experiment.key.name, %error, "an inference experiment does not go on");
                CLOCK_PAUSE
            }
        };
        pause = pause.min(next);
    }
    Ok(pause)
}

async fn step(app: &Arc<App>, experiment: &Resource) -> crate::Result<Duration> {
    let record = ExperimentRecord::read(&experiment.document)?;
    let now_ms = app.clock.now_ms();
    match experiment.status.as_str() {
        CREATED if now_ms >= record.start_at_ms => {
            begin(app, experiment).await?;
            Ok(Duration::ZERO)
        }
        CREATED => Ok(CLOCK_PAUSE),
        STARTING | UPDATING => {
            deploy(app, experiment, &record, |resource, _| resource.status = RUNNING.into()).await
        }
        RUNNING => run(app, experiment, &record, now_ms).await,
        STOPPING => stop(app, experiment, &record).await,
        other => Err(crate::Error::internal(format!("an inference experiment has the status {other}"))),
    }
}

/// Changes an experiment that still has the status that was seen.
async fn transition(
    app: &App,
    experiment: &Resource,
    edit: impl FnOnce(&mut Resource, &mut ExperimentRecord) + Send + 'static,
) -> crate::Result<()> {
    let (key, from, now_ms) = (experiment.key.clone(), experiment.status.clone(), app.clock.now_ms());
    let changed = app.database.write(move |session| {
        change(session, &key, &[&from], now_ms, |resource, record| {
            edit(resource, record);
            Ok(())
        })
    });
    match changed.await {
        // Somebody else was faster; the next look sees what is to be done.
        Ok(_) | Err(store::Error::WrongStatus { .. } | store::Error::Missing { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The time of an experiment has come.
async fn begin(app: &App, experiment: &Resource) -> store::Result<()> {
    let (key, now_ms) = (experiment.key.clone(), app.clock.now_ms());
    let endpoint = deployment::endpoint_key(experiment);
    let begun = app.database.write(move |session| begin_within(session, &key, &endpoint, now_ms));
    match begun.await {
        Ok(()) | Err(store::Error::WrongStatus { .. } | store::Error::Missing { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The transition to `Starting`, within a transaction; an experiment whose endpoint is taken by another one is cancelled.
///
/// # Errors
/// [`store::Error::WrongStatus`] for one that does not wait to be started.
pub fn begin_within(
    session: &store::Session<'_>,
    key: &ResourceKey,
    endpoint: &ResourceKey,
    now_ms: i64,
) -> store::Result<()> {
    let taken = rival(session, key, &endpoint.name, (now_ms, now_ms + 1), now_ms)?;
    let before = session.find_resource(endpoint)?;
    let before = before.map(|found| EndpointRecord::read(&found.document)).transpose()?;
    change(session, key, &[CREATED], now_ms, |resource, record| {
        // One that is started by hand begins now.
        record.start_at_ms = record.start_at_ms.min(now_ms);
        if let Some(other) = taken {
            resource.status = CANCELLED.into();
            record.reason =
                Some(format!("Inference experiment {other} uses endpoint {} now.", endpoint.name));
            return Ok(());
        }
        resource.status = STARTING.into();
        record.config_before = before.map(|before| before.config);
        record.deploy_next(&key.name);
        Ok(())
    })?;
    Ok(())
}

/// Goes on with a deployment; at its end comes `done`, and where it fails the way back.
async fn deploy(
    app: &Arc<App>,
    experiment: &Resource,
    record: &ExperimentRecord,
    done: impl FnOnce(&mut Resource, &mut ExperimentRecord) + Send + 'static,
) -> crate::Result<Duration> {
    let Some(deployment) = &record.deployment else {
        transition(app, experiment, done).await?;
        return Ok(Duration::ZERO);
    };
    match deployment::advance(app, experiment, record, deployment).await? {
        Progress::Waiting => Ok(BUSY_PAUSE),
        Progress::Asked => {
            note_asked(app, experiment).await?;
            Ok(BUSY_PAUSE)
        }
        Progress::Done => {
            transition(app, experiment, done).await?;
            Ok(Duration::ZERO)
        }
        Progress::Failed(text) => {
            give_up(app, experiment, text).await?;
            Ok(Duration::ZERO)
        }
    }
}

/// Takes down that the endpoint was told; that is no event.
async fn note_asked(app: &App, experiment: &Resource) -> store::Result<()> {
    let (key, status, now_ms) = (experiment.key.clone(), experiment.status.clone(), experiment.modified_at);
    let noted = app.database.write(move |session| {
        session.update_resource(&key, now_ms, |resource| {
            let mut record = ExperimentRecord::read(&resource.document)?;
            if let Some(deployment) = record.deployment.as_mut().filter(|_| resource.status == status) {
                deployment.is_asked = true;
            }
            resource.document = record.to_document();
            Ok(())
        })
    });
    match noted.await {
        Ok(_) | Err(store::Error::Missing { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Something failed: the endpoint goes back to what it was, and the experiment is cancelled. One that fails at that is over.
async fn give_up(app: &Arc<App>, experiment: &Resource, text: String) -> crate::Result<()> {
    if experiment.status == STOPPING {
        return transition(app, experiment, move |resource, record| {
            resource.status = CANCELLED.into();
            record.reason = Some(shorten(text));
        })
        .await;
    }
    end(app, experiment, CANCELLED, Some(shorten(text))).await
}

/// The transition to `Stopping` with production alone left.
async fn end(
    app: &Arc<App>,
    experiment: &Resource,
    status: &'static str,
    reason: Option<String>,
) -> crate::Result<()> {
    let name = experiment.key.name.clone();
    transition(app, experiment, move |resource, record| {
        record.reason = reason;
        let stop = Stop { status: status.into(), outcome: Outcome::Production, variants: None };
        begin_stop(&name, resource, record, stop);
    })
    .await
}

/// Sets an experiment to `Stopping`.
pub fn begin_stop(name: &str, resource: &mut Resource, record: &mut ExperimentRecord, stop: Stop) {
    resource.status = STOPPING.into();
    if stop.outcome == Outcome::Both && stop.variants.is_none() {
        // What is deployed stays as it is.
        record.deployment = None;
    } else {
        record.deploy_next(name);
    }
    record.stop = Some(stop);
}

/// Looks whether a running experiment still is what it was, and whether its time is over.
async fn run(
    app: &Arc<App>,
    experiment: &Resource,
    record: &ExperimentRecord,
    now_ms: i64,
) -> crate::Result<Duration> {
    let key = deployment::endpoint_key(experiment);
    let name = key.name.clone();
    let found = app.database.read(move |session| session.find_resource(&key)).await?;
    let reason = match found {
        None => Some(format!("Endpoint {name} was deleted.")),
        Some(endpoint) if endpoint.status == "Deleting" => Some(format!("Endpoint {name} is being deleted.")),
        Some(endpoint) => {
            let serves = EndpointRecord::read(&endpoint.document)?;
            serves.shadows.is_empty().then(|| {
                format!("Endpoint {name} was updated to configuration {} by somebody else.", serves.config)
            })
        }
    };
    if reason.is_some() {
        // What somebody else has done to the endpoint is not undone.
        transition(app, experiment, move |resource, record| {
            resource.status = CANCELLED.into();
            record.reason = reason;
        })
        .await?;
        return Ok(Duration::ZERO);
    }
    if now_ms >= record.end_at_ms {
        end(app, experiment, COMPLETED, None).await?;
        return Ok(Duration::ZERO);
    }
    Ok(CLOCK_PAUSE)
}

async fn stop(app: &Arc<App>, experiment: &Resource, record: &ExperimentRecord) -> crate::Result<Duration> {
    let Some(stop) = record.stop.clone() else {
        return Err(crate::Error::internal("an inference experiment stops without saying how"));
    };
    let mut record = record.clone();
    let back = way_back(app, experiment, &record, &stop).await?;
    if let (Some(config), Some(deployment)) = (back, record.deployment.as_mut()) {
        deployment.config = config;
    }
    // What was found out is shown with the end, unless the caller has said why it ends.
    let verdict = crate::shadow::view::picture_of(app, &deployment::endpoint_key(experiment)).await?;
    let verdict = verdict.and_then(|picture| picture["Sentence"].as_str().map(str::to_owned));
    deploy(app, experiment, &record, move |resource, record| {
        resource.status = stop.status;
        if record.reason.is_none() {
            record.reason = verdict.map(shorten);
        }
    })
    .await
}

/// The configuration that the endpoint had before the experiment, when that is all that is to be left.
async fn way_back(
    app: &App,
    experiment: &Resource,
    record: &ExperimentRecord,
    stop: &Stop,
) -> crate::Result<Option<String>> {
    if stop.outcome != Outcome::Production || stop.variants.is_some() {
        return Ok(None);
    }
    let before = deployment::config_before(app, experiment, record).await?;
    let is_plain = before.is_some_and(|before| before["ShadowProductionVariants"].is_null());
    Ok(record.config_before.clone().filter(|_| is_plain))
}
