//! The task behind the line of an endpoint: as soon as an instance has a place, the next request gets it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::attempt;
use super::ending::{End, Failure};
use super::line::{Line, Place, pick};
use super::{ENDED_AT_ONCE, RETRY_PAUSE};
use crate::app::App;

/// How often the clock is looked at while something waits for its time: it may be set, and the machine may sleep.
const CLOCK_PAUSE: Duration = Duration::from_secs(1);
/// Longest time between two looks, so that the task sees when the process state is gone.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Runs until the endpoint is deleted or the process state is gone.
pub async fn run(app: Weak<App>, line: Arc<Line>) {
    loop {
        let Some(state) = app.upgrade() else { return };
        // Nobody ends the line while this looks at it: what is taken out of it has a place before the look is over.
        let Some(look) = line.look() else { return };
        // Before the look, so that no change is missed.
        let mut status = state.endpoints.watch(&line.key);
        let (next_at, failed) = match step(&state, &line).await {
            Ok(next_at) => (next_at, false),
            Err(error) => {
                tracing::error!(endpoint = line.key.name, %error, "the requests of an endpoint could not be read");
                (None, true)
            }
        };
        drop(look);
        let clock = state.clock.clone();
        drop(state);
        if failed {
            tokio::time::sleep(RETRY_PAUSE).await;
            continue;
        }
        let change = async {
            let changed = match &mut status {
                Some(status) => status.changed().await.is_ok(),
                None => false,
            };
            if !changed {
                std::future::pending::<()>().await;
            }
        };
        let timer = async {
            let Some(next_at) = next_at else { return tokio::time::sleep(LONGEST_PAUSE).await };
            while clock.now_ms() < next_at {
                let left = Duration::from_millis((next_at - clock.now_ms()).max(1).unsigned_abs());
                tokio::time::sleep(left.min(CLOCK_PAUSE)).await;
            }
        };
        tokio::select! {
            () = line.rung() => {}
            () = change => {}
            () = timer => {}
        }
    }
}

/// Ends what has waited too long and begins what there is a place for; gives the time when the next one has waited too long.
async fn step(app: &Arc<App>, line: &Arc<Line>) -> store::Result<Option<i64>> {
    let variants = app.endpoints.variants(&line.key);
    let mut free = line.free(&variants);
    let places: u32 = free.iter().map(|(_, _, places)| places).sum();
    let (key, owner, now_ms) = (line.key.clone(), app.endpoints.queues.owner.clone(), app.clock.now_ms());
    let read = app.database.read({
        let (key, owner) = (key.clone(), owner.clone());
        move |session| {
            Ok((session.next_async_expiry(&key)?, session.has_async_requests_of_others(&key, &owner)?))
        }
    });
    // The next expiry is there whenever a request waits.
    let (next_at, are_held) = read.await?;
    let is_late = next_at.is_some_and(|next_at| next_at <= now_ms);
    // A transaction for nothing would make others wait.
    if !is_late && (places == 0 || (next_at.is_none() && !are_held)) {
        return Ok(next_at);
    }
    let claimed = app.database.write(move |session| {
        let late = session.claim_expired_async_requests(&key, &owner, ENDED_AT_ONCE, now_ms, now_ms)?;
        let next = session.claim_async_requests(&key, &owner, places as usize, now_ms)?;
        Ok((late, next, session.next_async_expiry(&key)?))
    });
    let (late, next, next_at) = claimed.await?;
    for request in late {
        let (app, place) = (app.clone(), line.place(""));
        tokio::spawn(async move {
            let failure = Failure::of_expiry(&request);
            attempt::end(&app, &place.line().key, request, End::Failed(failure)).await;
        });
    }
    for request in next {
        let Some(variant) = pick(&mut free, rand::random::<f64>()) else { break };
        let place: Place = line.place(&variant);
        tokio::spawn(attempt::run(app.clone(), place, request));
    }
    Ok(next_at)
}
