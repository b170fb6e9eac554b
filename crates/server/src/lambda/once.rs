//! Invocations that happen once: whoever asks again with the same id joins the one that runs, or gets the answer that it had.
//!
//! The function goes on when the server goes. It leaves in files that it has begun and what it answers; the next server waits for
//! it as the one before did. Only what is lost with the machine is invoked again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runner::workload::Exit;
use store::effects::Effect;
use store::resources::Resource;
use tokio::sync::watch;

use super::host::{self, Lost, kept_folder};
use super::invoke::{Ended, Invocation, lost, run};
use super::pool;
use super::record::Settings;
use crate::Error;
use crate::app::App;

/// What an instance may take beyond the time of its function to end.
const GRACE: Duration = Duration::from_secs(2);

type Outcome = Result<Ended, String>;

/// The invocations that run in this server, by id.
#[derive(Default)]
pub struct Once {
    running: Mutex<HashMap<String, watch::Receiver<Option<Outcome>>>>,
}

impl Once {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Receiver<Option<Outcome>>>> {
        // A poisoned lock only says that another thread panicked; the map is still a map.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a function unless it was run with this id before, and answers what it answered. Goes on when nobody waits any more.
///
/// # Errors
/// When the database fails, or what is stored of the function is damaged.
pub async fn invoke(
    app: &Arc<App>,
    function: &Resource,
    call: &Invocation<'_>,
    id: &str,
) -> Result<Ended, Error> {
    let mut outcome = {
        let mut running = app.functions.once.lock();
        match running.get(id) {
            Some(outcome) => outcome.clone(),
            None => {
                let (tell, outcome) = watch::channel(None);
                running.insert(id.to_owned(), outcome.clone());
                let (app, function, id) = (app.clone(), function.clone(), id.to_owned());
                let (request_id, payload) = (call.request_id.to_owned(), call.payload.to_owned());
                let client_context = call.client_context.clone();
                tokio::spawn(async move {
                    let call = Invocation { request_id: &request_id, payload: &payload, client_context };
                    let ended = settle(&app, &function, &call, &id).await.map_err(|error| error.to_string());
                    app.functions.once.lock().remove(&id);
                    // Nobody may be waiting any more.
                    let _ = tell.send(Some(ended));
                });
                outcome
            }
        }
    };
    let told = outcome.wait_for(Option::is_some).await.map(|told| told.clone());
    let told = told.map_err(|_| {
        app.functions.once.lock().remove(id);
        Error::internal("an invocation of a function panicked")
    })?;
    told.unwrap_or_else(|| Err("an invocation has no outcome".into())).map_err(Error::internal)
}

/// The answer that is kept, that of the instance which still runs, or that of a new invocation.
async fn settle(
    app: &Arc<App>,
    function: &Resource,
    call: &Invocation<'_>,
    id: &str,
) -> Result<Ended, Error> {
    let wanted = id.to_owned();
    let known = app.database.read(move |session| session.effect(&wanted)).await?;
    let ended = match known {
        Some(Effect { answer: Some(answer), .. }) => {
            return serde_json::from_value(answer).map_err(Error::internal);
        }
        Some(known) => match join(app, function, call, &known).await? {
            Some(ended) => ended,
            None => run(app, function, call, Some(id)).await?,
        },
        None => run(app, function, call, Some(id)).await?,
    };
    let (id, answer) = (id.to_owned(), serde_json::to_value(&ended).map_err(Error::internal)?);
    let kept = app.database.write(move |session| session.end_effect(&id, &answer)).await;
    if let Err(error) = kept {
        // Who asked has it; only a server that is killed now would ask again.
        tracing::warn!(%error, "the answer of a function could not be kept");
    }
    Ok(ended)
}

/// Waits for what an earlier server's instance answers; `None` when the function has not begun, or is lost with the machine.
async fn join(
    app: &Arc<App>,
    function: &Resource,
    call: &Invocation<'_>,
    known: &Effect,
) -> Result<Option<Ended>, Error> {
    let settings =
        Settings::stored(&function.spec).map_err(|_| Error::internal("a stored runtime is not known"))?;
    let told = |why: &Lost| Some(lost(why, call.request_id, settings.timeout_seconds));
    let Some((instance, ends_at)) = known.instance.as_deref().zip(known.ends_at) else { return Ok(None) };
    let left_ms = u64::try_from(ends_at - app.clock.now_ms()).unwrap_or(0);
    let waited =
        tokio::time::timeout(Duration::from_millis(left_ms) + GRACE, app.executor.wait(instance)).await;
    let folder = kept_folder(app, instance);
    let answer = tokio::fs::read(folder.join(format!("answer-{}", known.id))).await.ok();
    let has_begun = tokio::fs::try_exists(folder.join(format!("begun-{}", known.id))).await.unwrap_or(false);
    let ended = match (answer, waited) {
        (Some(bytes), _) => match host::read_answer(&bytes) {
            Ok(answer) => Some(Ended { ok: answer.ok, payload: answer.payload, log: answer.log }),
            Err(why) => told(&why),
        },
        (None, _) if !has_begun => None,
        (None, Err(_)) => told(&Lost::TimedOut),
        (None, Ok(Ok(report))) if !matches!(report.exit, Exit::SupervisorLost) => {
            told(&host::ended_with(Ok(report)))
        }
        (None, Ok(_)) => None,
    };
    pool::remove(app, instance, &pool::folder(&app.config).join(instance)).await;
    Ok(ended)
}
