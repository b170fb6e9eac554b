//! Brings events to the rules that want them: those of the event log, from a durable cursor, and the ticks of rules with a timetable.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use store::Session;
use store::resources::Resource;
use tokio::time::Instant;

use super::pattern::Pattern;
use super::targets::RuleTarget;
use super::{RULE, input, rules};
use crate::app::App;
use crate::{deliveries, events};

/// Name of the cursor in the event log.
const CURSOR: &str = "event-rules";
/// Events that are brought to the rules in one transaction.
const BATCH: usize = 200;
/// Pause after a failure of the database.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// How long the cursor may stay behind events that no rule wants: so much is looked at again after a crash.
const LONGEST_UNWRITTEN: Duration = Duration::from_secs(1);

/// Follows the event log for as long as the process state lives. A new data directory begins with what happens from now on.
pub fn start(app: &Arc<App>) {
    let weak = Arc::downgrade(app);
    let mut news = app.database.watch_events();
    tokio::spawn(async move {
        let mut follower = Follower { passed: 0, unwritten_since: None };
        loop {
            news.mark_unchanged();
            let Some(app) = weak.upgrade() else { return };
            match follower.bring_batch(&app).await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(%error, "events could not be brought to the rules");
                    tokio::time::sleep(FAILURE_PAUSE).await;
                    continue;
                }
            }
            drop(app);
            let pause = follower.unwritten_since.map(|since| since + LONGEST_UNWRITTEN);
            tokio::select! {
                changed = news.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(pause.unwrap_or_else(Instant::now)), if pause.is_some() => {}
            }
        }
    });
}

/// How far the event log was followed.
struct Follower {
    /// The last event that was looked at and that no rule wants.
    passed: i64,
    /// Since when the cursor is behind it.
    unwritten_since: Option<Instant>,
}

/// What a look at the event log found.
enum Look {
    /// Nothing that was not looked at before.
    Nothing,
    /// Events up to this one, none of which a rule wants.
    Unwanted(i64),
    /// Something to write.
    Wanted,
}

impl Follower {
    /// Brings some events to the rules and moves the cursor in the same transaction; `false` when there were none. Where no rule
    /// wants any of them, the cursor follows later: a transaction for each event would cost whoever waits for the disk.
    async fn bring_batch(&mut self, app: &Arc<App>) -> store::Result<bool> {
        let passed = self.passed;
        let now_ms = app.clock.now_ms();
        let look = app.database.read(move |session| {
            let Some(position) = session.event_cursor(CURSOR)? else { return Ok(Look::Wanted) };
            let events = session.all_events_after(events::ENVELOPED, position.max(passed), BATCH)?;
            let Some((_, last)) = events.last() else { return Ok(Look::Nothing) };
            let rules = Rules::read(session)?;
            let is_wanted =
                events.iter().any(|(key, event)| rules.wants(&key.account, &key.region, &event.detail));
            Ok(if is_wanted { Look::Wanted } else { Look::Unwanted(last.sequence) })
        });
        let any = match look.await? {
            Look::Nothing => false,
            Look::Unwanted(last) => {
                self.passed = last;
                self.unwritten_since.get_or_insert_with(Instant::now);
                true
            }
            Look::Wanted => return self.write(app, now_ms).await,
        };
        if self.unwritten_since.is_some_and(|since| since.elapsed() >= LONGEST_UNWRITTEN) {
            return self.write(app, now_ms).await.map(|_| any);
        }
        Ok(any)
    }

    /// Writes the deliveries of what comes next, and the cursor.
    async fn write(&mut self, app: &Arc<App>, now_ms: i64) -> store::Result<bool> {
        let passed = self.passed;
        let brought = app.database.write(move |session| {
            let Some(position) = session.event_cursor(CURSOR)? else {
                session.set_event_cursor(CURSOR, session.last_event()?)?;
                return Ok((false, 0));
            };
            let events = session.all_events_after(events::ENVELOPED, position.max(passed), BATCH)?;
            let last = events.last().map_or(passed, |(_, last)| last.sequence);
            if last > position {
                session.set_event_cursor(CURSOR, last)?;
            }
            let rules = Rules::read(session)?;
            let mut count = 0;
            for (key, event) in &events {
                count += rules.bring(session, (&key.account, &key.region), &event.detail, now_ms)?;
            }
            Ok((!events.is_empty(), count))
        });
        let (any, count) = brought.await?;
        self.unwritten_since = None;
        if count > 0 {
            app.deliveries.ring();
        }
        Ok(any)
    }
}

/// The rules with patterns that are switched on, by account and region.
pub struct Rules {
    by_place: HashMap<(String, String), Vec<(Resource, Pattern)>>,
}

impl Rules {
    /// Reads them.
    ///
    /// # Errors
    /// When the database fails.
    pub fn read(session: &Session<'_>) -> store::Result<Rules> {
        let mut by_place: HashMap<_, Vec<_>> = HashMap::new();
        for rule in session.all_resources(RULE)? {
            let pattern = rule.spec["EventPattern"].as_str().filter(|_| rule.status == "ENABLED");
            // It was checked when it was put.
            let Some(Ok(pattern)) = pattern.map(Pattern::parse) else { continue };
            let place = (rule.key.account.clone(), rule.key.region.clone());
            by_place.entry(place).or_default().push((rule, pattern));
        }
        Ok(Rules { by_place })
    }

    /// Whether a rule wants the event.
    fn wants(&self, account: &str, region: &str, event: &Value) -> bool {
        self.of(account, region).any(|(_, pattern)| pattern.matches(event))
    }

    fn of(&self, account: &str, region: &str) -> impl Iterator<Item = &(Resource, Pattern)> {
        self.by_place.get(&(account.to_owned(), region.to_owned())).into_iter().flatten()
    }

    /// Writes a delivery for each target of each rule that wants the event; gives their number.
    ///
    /// # Errors
    /// When the database fails.
    pub fn bring(
        &self,
        session: &Session<'_>,
        (account, region): (&str, &str),
        event: &Value,
        now_ms: i64,
    ) -> store::Result<usize> {
        let mut count = 0;
        for (rule, pattern) in self.of(account, region) {
            if pattern.matches(event) {
                count += to_targets(session, rule, event, now_ms)?;
            }
        }
        Ok(count)
    }
}

/// Writes a delivery for each target of a rule. The id is made of rule, target and event: the same event comes once to a target.
fn to_targets(session: &Session<'_>, rule: &Resource, event: &Value, now_ms: i64) -> store::Result<usize> {
    let (account, region) = (rule.key.account.as_str(), rule.key.region.as_str());
    let targets = rule.document["Targets"].as_array().map(Vec::as_slice).unwrap_or_default();
    let now = events::moment(now_ms);
    for target in targets {
        let target = match RuleTarget::read(target, account) {
            Ok(target) => target,
            // It was checked when it was put; one that cannot be read any more must not keep the others from their events.
            Err(why) => {
                tracing::error!(rule = rule.arn, why, "a target is passed over");
                continue;
            }
        };
        let id = deliveries::id_of(&[&rule.arn, &target.id, event["id"].as_str().unwrap_or_default()]);
        let payload = target.shaping.of(event, &rule.arn, &rule.key.name, &now);
        let destination = with_parts(target.target.clone(), event);
        let delivery = deliveries::new(id, account, region, &rule.arn, &destination, payload, now_ms);
        let policy = target.policy.filter(|_| !matches!(target.target, deliveries::Target::Function { .. }));
        session.insert_delivery(&deliveries::with_policy(delivery, policy, target.dead_letter))?;
    }
    Ok(targets.len())
}

/// A target with what its paths lead to in the event. A parameter whose path leads nowhere is left to the pipeline's default.
fn with_parts(mut target: deliveries::Target, event: &Value) -> deliveries::Target {
    if let deliveries::Target::Pipeline { parameters, .. } = &mut target {
        let filled = std::mem::take(parameters).into_iter();
        *parameters =
            filled.filter_map(|(name, value)| Some((name, input::text_or_part(&value, event)?))).collect();
    }
    target
}

/// A tick of a rule with a timetable.
///
/// # Errors
/// When the database fails, or the rule is damaged.
pub fn fire(session: &Session<'_>, rule: &Resource, tick_at: i64, now_ms: i64) -> store::Result<()> {
    let Some(table) = rules::timetable(rule).map_err(store::Error::Invalid)? else {
        return session.delete_timer(&rule.key);
    };
    let mut event =
        events::envelope("Scheduled Event", "aws.events", &rule.key, &rule.arn, &json!({}), tick_at);
    event["id"] = deliveries::id_of(&[&rule.arn, &tick_at.to_string()]).into();
    to_targets(session, rule, &event, now_ms)?;
    crate::scheduler::timers::set(session, &rule.key, &table, 0, tick_at.max(now_ms)).map(drop)
}
