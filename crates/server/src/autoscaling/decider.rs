//! The one who decides: each second, and at once when a request meets no replica, it looks at every target and acts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::Value;
use serving::{EndpointPhase, EndpointStatus};
use store::scaling::ScalingActivity;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use super::acting::{self, Reason, TargetFacts};
use super::policies;
use super::policy::{Metric, Tracking};
use super::targets::TARGET;
use super::tracking::{self, Decision, Level, Reading, State, Voice, Wish, Wishes};
use crate::app::App;
use crate::endpoints::capacity;
use crate::endpoints::scaled::Scaled;

/// Tells the decider that targets or policies are others.
#[derive(Debug)]
pub struct Scaling {
    changed: AtomicBool,
    bell: Arc<Notify>,
}

impl Default for Scaling {
    fn default() -> Scaling {
        // What is stored has not been read yet.
        Scaling { changed: AtomicBool::new(true), bell: Arc::default() }
    }
}

impl Scaling {
    /// Call it after the commit.
    pub fn changed(&self) {
        self.changed.store(true, Ordering::Release);
        self.bell.notify_one();
    }
}

/// A target with its policies.
struct Watched {
    facts: TargetFacts,
    watchers: Vec<Watcher>,
    /// A change that is still going on.
    open: Option<ScalingActivity>,
    /// What had failed in the endpoint when that began, as far as it was seen.
    failure: Option<String>,
    /// The policy of which it was taken down that the bounds do not allow what it wants, and when it last wanted it.
    told: Option<(usize, i64)>,
}

/// A wish beyond the bounds that comes again within this time is the same one.
const SAME_WISH_MS: i64 = 60_000;

/// A policy with what it wanted lately.
struct Watcher {
    name: String,
    spec: Value,
    tracking: Tracking,
    wishes: Wishes,
    /// Whether the log has been told that its metric cannot be read.
    complained: bool,
}

/// Decides for as long as the process state lives.
pub fn start(app: &Arc<App>) {
    let weak = Arc::downgrade(app);
    let (wake_bell, bell) = (app.endpoints.wake_bell.clone(), app.scaling.bell.clone());
    tokio::spawn(run(weak, wake_bell, bell));
}

async fn run(weak: Weak<App>, wake_bell: Arc<Notify>, bell: Arc<Notify>) {
    let mut targets: Vec<Watched> = Vec::new();
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_tick = tokio::select! {
            _ = seconds.tick() => true,
            () = wake_bell.notified() => false,
            () = bell.notified() => false,
        };
        let Some(app) = weak.upgrade() else { return };
        if app.scaling.changed.swap(false, Ordering::AcqRel)
            && let Err(error) = reload(&app, &mut targets).await
        {
            tracing::error!(%error, "scalable targets could not be read");
            app.scaling.changed.store(true, Ordering::Release);
        }
        for target in &mut targets {
            if let Err(error) = target.step(&app, is_tick).await {
                tracing::error!(target = target.facts.resource_id, %error, "a scalable target could not be looked after");
            }
        }
    }
}

/// Reads the targets anew; what policies wanted lately is kept for those that are the same.
async fn reload(app: &App, targets: &mut Vec<Watched>) -> store::Result<()> {
    let stored = app.database.read(|session| {
        let mut all = Vec::new();
        for target in session.all_resources(TARGET)? {
            let Some(facts) = TargetFacts::read(&target) else { continue };
            let key = &target.key;
            let policies = policies::of_target(session, &key.account, &key.region, &key.name)?;
            let dimension = facts.scaled.dimension();
            let open =
                session.open_scaling_activity(&key.account, &key.region, &facts.resource_id, dimension)?;
            all.push((facts, policies, open));
        }
        Ok(all)
    });
    let mut before = std::mem::take(targets);
    for (facts, policies, open) in stored.await? {
        let at = before.iter().position(|target| target.facts.key == facts.key);
        let mut old = at.map(|at| before.swap_remove(at));
        let mut watchers = Vec::new();
        for policy in policies {
            let configuration = &policy.spec["TargetTrackingScalingPolicyConfiguration"];
            // Step policies act when their alarms change.
            if configuration.is_null() {
                continue;
            }
            let kept = old.as_mut().and_then(|old| {
                let at = old.watchers.iter().position(|watcher| watcher.spec == policy.spec)?;
                Some(old.watchers.swap_remove(at))
            });
            match kept.map_or_else(
                || Tracking::read(configuration, &facts.key.account).map(Err),
                |kept| Ok(Ok(kept)),
            ) {
                Ok(Ok(kept)) => watchers.push(kept),
                Ok(Err(tracking)) => watchers.push(Watcher {
                    name: policy.spec["PolicyName"].as_str().unwrap_or_default().to_owned(),
                    spec: policy.spec,
                    tracking,
                    wishes: Wishes::default(),
                    complained: false,
                }),
                Err(text) => tracing::error!(policy = policy.arn, text, "a scaling policy cannot be read"),
            }
        }
        let same = old
            .as_ref()
            .filter(|old| old.open.as_ref().map(|open| &open.id) == open.as_ref().map(|open| &open.id));
        let failure = match same {
            Some(old) => old.failure.clone(),
            None => app.endpoints.status(&facts.endpoint).and_then(|status| status.last_failure),
        };
        let told = old.and_then(|old| old.told).filter(|(told, _)| *told < watchers.len());
        targets.push(Watched { facts, watchers, open, failure, told });
    }
    for gone in before {
        if gone.facts.scaled.is_woken() {
            app.endpoints.set_wakes(&gone.facts.endpoint, &gone.facts.variant, false);
        }
    }
    Ok(())
}

impl Watched {
    async fn step(&mut self, app: &App, is_tick: bool) -> crate::Result<()> {
        let Some(status) = app.endpoints.status(&self.facts.endpoint) else { return Ok(()) };
        let is_woken = self.facts.scaled.is_woken();
        let wakes = is_woken && self.facts.max > 0 && !self.facts.out_suspended;
        if is_woken {
            app.endpoints.set_wakes(&self.facts.endpoint, &self.facts.variant, wakes);
        }
        let serves =
            status.phase == EndpointPhase::InService && status.generation == status.wanted_generation;
        let found = status.variants.iter().find(|variant| variant.name == self.facts.variant);
        let (true, Some(variant)) = (serves, found) else { return Ok(()) };
        let place = app.endpoints.components.place(&self.facts.endpoint);
        let shortage = place.as_ref().filter(|place| place.placed < place.wanted).map(|place| place.placed);
        let (current, reached) = match self.facts.scaled {
            Scaled::Instances => (variant.desired_replicas, variant.healthy_replicas),
            // Copies that have no room are wanted all the same.
            Scaled::Copies => {
                let wanted = place.as_ref().map_or(variant.desired_replicas, |place| place.wanted);
                (wanted, variant.healthy_replicas)
            }
            Scaled::ProvisionedConcurrency => {
                let provisioned = app.endpoints.provisioned(&self.facts.endpoint, &self.facts.variant);
                let is_warm = variant.healthy_replicas >= variant.desired_replicas;
                (provisioned, if is_warm { provisioned } else { 0 })
            }
        };
        self.finish(app, &status, (current, reached), shortage).await?;
        if self.facts.bounds_changed {
            return self.follow_bounds(app, current).await;
        }
        let in_flight = app.endpoints.in_flight(&self.facts.endpoint, &self.facts.variant);
        if current == 0 && in_flight > 0 && wakes {
            return self.wake(app, in_flight).await;
        }
        if is_tick && !self.watchers.is_empty() {
            // What has no replica is woken by whoever asks.
            self.decide(app, current, is_woken && in_flight > 0).await
        } else {
            Ok(())
        }
    }

    /// Ends the change that is going on, once the endpoint has followed or shows that it does not.
    async fn finish(
        &mut self,
        app: &App,
        status: &EndpointStatus,
        (current, healthy): (u32, u32),
        shortage: Option<u32>,
    ) -> crate::Result<()> {
        let Some(open) = &self.open else { return Ok(()) };
        let Some(to) = open.capacity_after.and_then(|to| u32::try_from(to).ok()) else { return Ok(()) };
        let words = self.facts.scaled.words();
        let outcome = if current != to {
            // The fleet hears of a change a moment after the database.
            let facts = self.facts.clone();
            let read = app.database.read(move |session| {
                capacity::wanted(session, &facts.endpoint, (&facts.variant, facts.scaled))
            });
            match read.await? {
                Some(wanted) if wanted != to => {
                    ("Overridden", format!("The {words} was set to {wanted} by somebody else."))
                }
                _ => return Ok(()),
            }
        } else if healthy >= to {
            let message =
                format!("Successfully set {words} to {to}. Change successfully fulfilled by sagemaker.");
            ("Successful", message)
        } else if let Some(failure) =
            status.last_failure.as_ref().filter(|one| Some(*one) != self.failure.as_ref())
        {
            let first = failure.lines().next().unwrap_or_default();
            ("Failed", format!("An instance did not start and is tried again: {first}"))
        } else if let Some(placed) = shortage.filter(|placed| healthy >= *placed) {
            let message = format!(
                "{placed} of {to} copies have room on the instances; the FailureReason of the component says more."
            );
            ("Failed", message)
        } else {
            return Ok(());
        };
        if let Some(open) = self.open.take() {
            acting::end(app, &self.facts, open, outcome).await?;
        }
        Ok(())
    }

    /// Brings the capacity between bounds that were set.
    async fn follow_bounds(&mut self, app: &App, current: u32) -> crate::Result<()> {
        let to = current.clamp(self.facts.min, self.facts.max);
        if to == current {
            acting::bounds_followed(app, &self.facts).await?;
            self.facts.bounds_changed = false;
            return Ok(());
        }
        let word = if to > current { "minimum" } else { "maximum" };
        let cause = format!("{word} capacity was set to {to}");
        let reason = Reason { cause, details: None, out_cooldown_seconds: 0 };
        acting::scale(app, &self.facts, (current, to), reason).await.map(drop)
    }

    async fn wake(&mut self, app: &App, in_flight: u64) -> crate::Result<()> {
        let to = self.facts.min.max(1);
        let reason = Reason {
            cause: format!("a request arrived while the {} was 0", self.facts.scaled.words()),
            details: Some(format!("{in_flight} requests wait for the first one")),
            out_cooldown_seconds: 0,
        };
        acting::scale(app, &self.facts, (0, to), reason).await.map(drop)
    }

    async fn decide(&mut self, app: &App, current: u32, is_busy: bool) -> crate::Result<()> {
        let now_ms = app.clock.now_ms();
        let low_seconds = i64::from(app.config.scale_in_after_seconds);
        let mut voices = Vec::new();
        for watcher in &mut self.watchers {
            let Some(wish) = watcher.wish(app, &self.facts, current, now_ms).await else { continue };
            watcher.wishes.add(now_ms.div_euclid(1000), wish.capacity, low_seconds);
            voices.push((
                watcher,
                Voice {
                    wish,
                    most_lately: None,
                    only_out: false,
                    out_cooldown_seconds: 0,
                    in_cooldown_seconds: 0,
                },
            ));
        }
        for (watcher, voice) in &mut voices {
            // What came before the server's start is not known, so that little demand may be too little.
            let is_whole = app.endpoints.demand.watched_seconds() >= watcher.tracking.metric.seconds();
            voice.most_lately = watcher.wishes.most(low_seconds).filter(|_| is_whole);
            voice.only_out = watcher.tracking.only_out;
            voice.out_cooldown_seconds = watcher.tracking.out_cooldown_seconds;
            voice.in_cooldown_seconds = watcher.tracking.in_cooldown_seconds;
        }
        let state = State {
            current,
            min: self.facts.min,
            max: self.facts.max,
            out_suspended: self.facts.out_suspended,
            in_suspended: self.facts.in_suspended,
            is_changing: self.open.is_some(),
            is_busy,
            recent: self.facts.recent,
        };
        let heard: Vec<Voice> = voices.iter().map(|(_, voice)| *voice).collect();
        let decision = tracking::decide(&heard, state, now_ms);
        let told = |number: usize| (voices[number].0.cause(&heard[number].wish), heard[number]);
        match decision {
            Decision::Stay => Ok(()),
            Decision::Move { to, voice } => {
                let (cause, voice) = told(voice);
                self.told = None;
                let details = voices_detail(&voice, self.facts.scaled, (current, to));
                let reason = Reason {
                    cause,
                    details: Some(details),
                    out_cooldown_seconds: voice.out_cooldown_seconds,
                };
                acting::scale(app, &self.facts, (current, to), reason).await.map(drop)
            }
            Decision::AtMost { voice } | Decision::AtLeast { voice } => {
                let is_same = |(told, at): (usize, i64)| told == voice && now_ms - at < SAME_WISH_MS;
                if self.told.is_some_and(is_same) {
                    self.told = Some((voice, now_ms));
                    return Ok(());
                }
                let (cause, _) = told(voice);
                let at_most = matches!(decision, Decision::AtMost { .. });
                acting::refuse(app, &self.facts, cause, at_most, current).await?;
                self.told = Some((voice, now_ms));
                Ok(())
            }
        }
    }
}

fn voices_detail(voice: &Voice, scaled: Scaled, (from, to): (u32, u32)) -> String {
    let wanted = voice.wish.capacity;
    let lately = match voice.most_lately {
        Some(most) if to < from => format!("; the most that would have been needed lately is {most}"),
        _ => String::new(),
    };
    format!("{from} to {to} {}; {wanted} would meet the target{lately}", scaled.unit())
}

impl Watcher {
    /// What the policy wants now; `None` while its metric is not known for long enough.
    async fn wish(&mut self, app: &App, facts: &TargetFacts, current: u32, now_ms: i64) -> Option<Wish> {
        let tracking = &self.tracking;
        let asked = || app.endpoints.asked(&facts.endpoint, &facts.variant, tracking.metric.seconds());
        let reading = match &tracking.metric {
            Metric::Invocations => {
                // What was counted so far may be too little, but never too much: it is enough to grow.
                Reading::Total(asked().invocations as f64)
            }
            Metric::ConcurrentRequests | Metric::ProvisionedUtilization => {
                Reading::Total(asked().concurrency)
            }
            Metric::Customized(metric) => {
                let owner = (&*facts.key.account, &*facts.key.region);
                match metric.value(app, owner, now_ms.div_euclid(1000)).await {
                    Ok(value) => {
                        self.complained = false;
                        Reading::PerInstance(value?)
                    }
                    Err(text) => {
                        if !self.complained {
                            tracing::error!(
                                policy = self.name,
                                text,
                                "the metric of a scaling policy cannot be read"
                            );
                        }
                        self.complained = true;
                        return None;
                    }
                }
            }
        };
        let grows = facts.recent.grows(tracking.out_cooldown_seconds, now_ms);
        let measured_with = if grows { facts.recent.out_from.min(current) } else { current };
        Some(tracking::wish(reading, tracking.target, current, measured_with))
    }

    fn cause(&self, wish: &Wish) -> String {
        let each = if self.tracking.of == Some(Scaled::Copies) { "copy" } else { "instance" };
        let metric = match &self.tracking.metric {
            Metric::Invocations => format!("invocations per {each} in the last minute"),
            Metric::ConcurrentRequests => format!("concurrent requests per {each} in the last 10 seconds"),
            Metric::ProvisionedUtilization => {
                "utilization of the provisioned concurrency in the last 10 seconds".into()
            }
            Metric::Customized(_) => "the customized metric of the last minute".into(),
        };
        let side = match wish.level {
            Level::High => "above",
            Level::Right => "near",
            Level::Low => "below",
        };
        format!(
            "{metric}, {}, being {side} the target {} triggered policy {}",
            rounded(wish.value),
            self.tracking.target,
            self.name
        )
    }
}

/// A number for people: two digits behind the point.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
