//! Fires timers: the tick, what it asks for and the time of the next one are one transaction.

use std::sync::Arc;
use std::time::Duration;

use store::Session;
use store::resources::ResourceKey;
use store::timers::Timer;
use tokio::sync::Notify;

use super::timetable::Timetable;
use crate::app::App;

/// How often the clock is looked at while a timer waits: it may be set, and the machine may sleep.
const CLOCK_PAUSE: Duration = Duration::from_secs(1);
/// Timers that fire in one transaction.
const BATCH: usize = 100;

/// What sets timers off.
#[derive(Debug, Default)]
pub struct Timers {
    bell: Notify,
}

impl Timers {
    /// Says that a timer was set. Call it after the commit.
    pub fn ring(&self) {
        self.bell.notify_one();
    }
}

/// Sets the timer of a resource to the next occasion of its timetable, or takes it away when there is none. `window_minutes` is how
/// much later than the occasion it may fire; how much it is, is the same whenever it is asked.
pub fn set(
    session: &Session<'_>,
    key: &ResourceKey,
    timetable: &Timetable,
    window_minutes: i64,
    after_ms: i64,
) -> store::Result<bool> {
    let Some(tick_at) = timetable.next_after(after_ms) else {
        session.delete_timer(key)?;
        return Ok(false);
    };
    let fires_at = tick_at + within(window_minutes, &key.name, tick_at);
    session.put_timer(&Timer { key: key.clone(), tick_at, fires_at })?;
    Ok(true)
}

fn within(window_minutes: i64, name: &str, tick_at: i64) -> i64 {
    if window_minutes <= 0 {
        return 0;
    }
    let id = crate::deliveries::id_of(&[name, &tick_at.to_string()]);
    let number = i64::from_str_radix(&id[..8], 16).unwrap_or_default();
    number % (window_minutes * 60_000)
}

/// Fires timers, for as long as the process state lives.
pub fn start(app: &Arc<App>) {
    let weak = Arc::downgrade(app);
    let timers = app.timers.clone();
    tokio::spawn(async move {
        loop {
            let Some(app) = weak.upgrade() else { return };
            let next_at = match fire_due(&app).await {
                Ok(next_at) => next_at,
                Err(error) => {
                    tracing::error!(%error, "timers could not be fired");
                    Some(app.clock.now_ms() + 1000)
                }
            };
            let clock = app.clock.clone();
            drop(app);
            let time = async {
                let Some(next_at) = next_at else { return tokio::time::sleep(Duration::from_secs(60)).await };
                loop {
                    let left = next_at - clock.now_ms();
                    if left <= 0 {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(left.unsigned_abs()).min(CLOCK_PAUSE)).await;
                    if weak.strong_count() == 0 {
                        return;
                    }
                }
            };
            tokio::select! {
                () = timers.bell.notified() => {}
                () = time => {}
            }
        }
    });
}

/// Fires the timers whose time has come; gives the time of the next one.
async fn fire_due(app: &Arc<App>) -> store::Result<Option<i64>> {
    loop {
        let now_ms = app.clock.now_ms();
        let due = app.database.read(move |session| session.due_timers(now_ms, 1)).await?;
        if due.is_empty() {
            return app.database.read(|session| session.next_timer_at()).await;
        }
        let fired = app.database.write(move |session| {
            let due = session.due_timers(now_ms, BATCH)?;
            for timer in &due {
                fire(session, timer, now_ms)?;
            }
            Ok(due.len())
        });
        let count = fired.await?;
        app.deliveries.ring();
        app.scaling.changed();
        tracing::debug!(count, "timers fired");
    }
}

/// One tick. Ticks that were missed while the server was down are one: the timer goes on with the first occasion after now.
fn fire(session: &Session<'_>, timer: &Timer, now_ms: i64) -> store::Result<()> {
    let Some(resource) = session.find_resource(&timer.key)? else { return session.delete_timer(&timer.key) };
    let fired = match resource.key.kind.as_str() {
        crate::eventbridge::RULE => crate::eventbridge::fire(session, &resource, timer.tick_at, now_ms),
        super::SCHEDULE => super::schedules::fire(session, &resource, timer.tick_at, now_ms),
        crate::autoscaling::SCHEDULED_ACTION => {
            crate::autoscaling::fire(session, &resource, timer.tick_at, now_ms)
        }
        _ => session.delete_timer(&timer.key),
    };
    // One resource that cannot be read must not keep the others from their time.
    fired.or_else(|error| match error {
        store::Error::Damaged(_) | store::Error::Invalid(_) => {
            tracing::error!(arn = resource.arn, %error, "a timer is taken away");
            session.delete_timer(&timer.key)
        }
        other => Err(other),
    })
}
