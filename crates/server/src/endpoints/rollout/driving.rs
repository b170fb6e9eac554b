//! The loop that drives a deployment, of an endpoint as of an inference component: look, take the step that is due, wait for something to change.

use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::{Value, json};
use serving::{EndpointPhase, EndpointStatus};
use store::resources::ResourceKey;
use tokio::sync::oneshot;

use super::config;
use super::machine::{self, Action, Policy, Progress, Seen, Stage};
use crate::Result;
use crate::app::App;
use crate::monitoring::{AlarmState, alarm_states};

/// Time between two looks when nothing tells of a change.
const PAUSE: Duration = Duration::from_millis(250);

/// What to do after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Look again.
    GoOn,
    /// The deployment is over, or somebody else has taken over what is deployed.
    End,
}

/// What is seen of a deployment.
pub struct Look {
    /// How it goes.
    pub policy: Policy,
    /// Where it stands.
    pub progress: Progress,
    /// Milliseconds since 1970.
    pub started_at: i64,
    /// Whether all wanted instances of the fleet before answer.
    pub old_ready: bool,
    /// Whether all wanted instances of the new fleet answer.
    pub new_ready: bool,
    /// Why the new fleet will not come up.
    pub new_failure: Option<String>,
    /// What a guard or an alarm says against the new fleet.
    pub breach: Option<String>,
}

/// A deployment that is driven. What changes it is one transaction each.
pub trait Driven: Send {
    /// The endpoint or component.
    fn key(&self) -> &ResourceKey;

    /// Looks at the fleets; `None` when there is no deployment.
    fn look(
        &mut self,
        app: &Arc<App>,
        status: &EndpointStatus,
    ) -> impl Future<Output = Result<Option<Look>>> + Send;

    /// Moves the requests, then writes the step down, with the reason for which it goes back: after a crash between the two the step is
    /// taken again.
    fn go(
        &mut self,
        app: &Arc<App>,
        next: Progress,
        reason: Option<String>,
        now_ms: i64,
    ) -> impl Future<Output = Result<Then>> + Send;

    /// Ends it: the new fleet stays alone, or the one before does.
    fn end(
        &mut self,
        app: &Arc<App>,
        is_deployed: bool,
        now_ms: i64,
    ) -> impl Future<Output = Result<Then>> + Send;

    /// Nothing serves any more, for that reason.
    fn fail(
        &mut self,
        app: &Arc<App>,
        reason: String,
        now_ms: i64,
    ) -> impl Future<Output = Result<Then>> + Send;

    /// Tells, once, that the fleet before does not come back; it is tried further.
    fn stuck(&mut self, app: &Arc<App>, now_ms: i64) -> impl Future<Output = Result<Then>> + Send;
}

/// Goes on until a deployment has ended, or somebody else has taken over what is deployed. `moved` is told when the data plane stands where
/// the deployment does.
pub async fn drive(weak: Weak<App>, mut driven: impl Driven, moved: oneshot::Receiver<()>) {
    // It is gone when nobody answers.
    if moved.await.is_err() {
        return;
    }
    let watched = weak.upgrade();
    let watched = watched.and_then(|app| Some((app.endpoints.watch(driven.key())?, app.alarms.watch())));
    let Some((mut status, mut alarms)) = watched else { return };
    let mut is_stuck = false;
    loop {
        let Some(app) = weak.upgrade() else { return };
        let seen = status.borrow_and_update().clone();
        match step(&mut driven, &app, &seen, &mut is_stuck).await {
            Ok(Then::GoOn) => {}
            Ok(Then::End) => return,
            Err(error) => {
                let ResourceKey { kind, name, .. } = driven.key();
                tracing::error!(kind, name, %error, "a step of a deployment failed and is tried again");
            }
        }
        drop(app);
        tokio::select! {
            changed = status.changed() => if changed.is_err() { return },
            _ = alarms.changed() => {}
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// Takes the step that is due.
async fn step(
    driven: &mut impl Driven,
    app: &Arc<App>,
    status: &EndpointStatus,
    is_stuck: &mut bool,
) -> Result<Then> {
    let now_ms = app.clock.now_ms();
    if let EndpointPhase::Failed { reason } = &status.phase {
        // Only after a restart: what served does not come up again.
        return driven.fail(app, reason.clone(), now_ms).await;
    }
    let Some(look) = driven.look(app, status).await? else { return Ok(Then::End) };
    let seen = Seen {
        now_ms,
        new_ready: look.new_ready,
        new_failure: look.new_failure.as_deref(),
        old_ready: look.old_ready,
        breach: look.breach.as_deref(),
    };
    match machine::next(&look.policy, &look.progress, look.started_at, &seen) {
        Action::Stay => Ok(Then::GoOn),
        Action::Go(next) => driven.go(app, next, None, now_ms).await,
        Action::RollBack(next, reason) => {
            let ResourceKey { kind, name, .. } = driven.key();
            tracing::warn!(kind, name, reason, "a deployment is rolled back");
            driven.go(app, next, Some(reason), now_ms).await
        }
        Action::Done => driven.end(app, true, now_ms).await,
        Action::RolledBack => driven.end(app, false, now_ms).await,
        Action::Stuck if *is_stuck => Ok(Then::GoOn),
        Action::Stuck => {
            *is_stuck = true;
            driven.stuck(app, now_ms).await
        }
    }
}

/// Says which alarm of a `DeploymentConfig` is against the deployment, if one is.
///
/// # Errors
/// When the database fails.
pub async fn alarm(
    app: &App,
    key: &ResourceKey,
    config: Option<&Value>,
    progress: &Progress,
) -> Result<Option<String>> {
    let names = config.map(config::alarms).unwrap_or_default();
    if names.is_empty() || progress.stage == Stage::RollingBack {
        return Ok(None);
    }
    let states = alarm_states(app, (&key.account, &key.region), &names).await?;
    let alarmed = names.iter().find(|name| states.get(*name) == Some(&AlarmState::Alarm));
    Ok(alarmed.map(|name| format!("The alarm {name} went into the state ALARM.")))
}

/// Whether the fleet that the status shows is of this generation, and all wanted instances of it answer.
pub fn is_whole(status: &EndpointStatus, generation: u64) -> bool {
    status.phase == EndpointPhase::InService
        && status.generation == generation
        && status.variants.iter().all(|variant| variant.healthy_replicas >= variant.desired_replicas)
}

/// What the event of a step says.
pub fn detail(progress: &Progress) -> Value {
    json!({
        "Stage": progress.stage,
        "Step": progress.step,
        "TrafficShare": progress.share,
        "NewCapacity": progress.new_part,
        "OldCapacity": progress.old_part,
    })
}
