//! SQS: queues of an account, standard and first-in-first-out. A message is a row of the database, so an acknowledged one stays.

mod attributes;
mod deliver;
mod digest;
mod error;
mod message_attributes;
mod queues;
mod receipts;
mod receive;
mod send;
mod tags;
mod waiters;

use std::sync::Arc;
use std::time::Duration;

use store::queues::Queue;

use crate::{App, Cx, Registry};
use error::{Problem, Result};

pub use deliver::{Delivery, deliver};
pub use message_attributes::{Attribute, checked as checked_attribute};
pub use waiters::Waiters;

/// How often messages are removed that are older than their queue keeps them. They cannot be received before that either.
const EXPIRY_PAUSE: Duration = Duration::from_secs(60 * 60);

/// Most entries of a batch.
const MOST_ENTRIES: usize = 10;

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    queues::routes(registry);
    receive::routes(registry);
    receipts::routes(registry);
    send::routes(registry);
    tags::routes(registry);
}

/// Removes messages whose time is over, now and then, for as long as the process state lives.
pub fn expire_hourly(app: &Arc<App>) {
    let app = Arc::downgrade(app);
    tokio::spawn(async move {
        let mut hours = tokio::time::interval(EXPIRY_PAUSE);
        loop {
            hours.tick().await;
            let Some(app) = app.upgrade() else { return };
            let now_ms = app.clock.now_ms();
            if let Err(error) = app.database.write(move |session| session.expire_messages(now_ms)).await {
                tracing::error!(%error, "old messages could not be removed");
            }
        }
    });
}

/// The ARN of a queue.
fn arn(region: &str, account: &str, name: &str) -> String {
    format!("arn:aws:sqs:{region}:{account}:{name}")
}

/// The URL of a queue. Only its last two parts say which queue it is.
fn url(app: &App, queue: &Queue) -> String {
    format!("{}/{}/{}", app.connection.endpoint.trim_end_matches('/'), queue.account, queue.name)
}

/// The queue that a URL of the caller's account names.
async fn find(cx: &Cx, url: &str) -> Result<Queue> {
    let mut parts = url.trim_end_matches('/').rsplit('/');
    let (Some(name), Some(account)) = (parts.next(), parts.next()) else {
        return Err(Problem::new(
            "InvalidAddress",
            format!("The address {url} is not valid for this endpoint."),
        ));
    };
    if account != cx.caller.account {
        return Err(Problem::Denied(format!("Access to the resource {url} is denied.")));
    }
    let (account, region, name) = (cx.caller.account.clone(), cx.caller.region.clone(), name.to_owned());
    let found = cx.state.database.read(move |session| session.queue(&account, &region, &name)).await?;
    found.ok_or_else(Problem::missing)
}

/// Refuses a batch that has no entries, too many, or the same id twice.
fn check_batch<'a>(ids: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for id in ids {
        let fits = (1..=80).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if !fits {
            let text = "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most \
                        80 letters long.";
            return Err(Problem::new("InvalidBatchEntryId", text));
        }
        if !seen.insert(id) {
            return Err(Problem::new("BatchEntryIdsNotDistinct", format!("Id {id} repeated.")));
        }
    }
    match seen.len() {
        0 => Err(Problem::new("EmptyBatchRequest", "There should be at least one entry in the request.")),
        1..=MOST_ENTRIES => Ok(()),
        sent => Err(Problem::new(
            "TooManyEntriesInBatchRequest",
            format!("Maximum number of entries per request are {MOST_ENTRIES}. You have sent {sent}."),
        )),
    }
}
