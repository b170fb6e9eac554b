//! Queues: create, find, list, delete, empty, and their attributes.

use std::collections::BTreeMap;

use api::sqs::{
    CreateQueue, CreateQueueInput, CreateQueueOutput, DeleteQueue, DeleteQueueInput, DeleteQueueOutput,
    GetQueueAttributes, GetQueueAttributesInput, GetQueueAttributesOutput, GetQueueUrl, GetQueueUrlInput,
    GetQueueUrlOutput, ListDeadLetterSourceQueues, ListDeadLetterSourceQueuesInput,
    ListDeadLetterSourceQueuesOutput, ListQueues, ListQueuesInput, ListQueuesOutput, PurgeQueue,
    PurgeQueueInput, PurgeQueueOutput, SetQueueAttributes, SetQueueAttributesInput, SetQueueAttributesOutput,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use store::Session;
use store::queues::{MessageCounts, Queue, QueueSettings};

use super::error::{Problem, Result};
use super::{arn, attributes, find, url};
use crate::{Cx, Registry};

/// Time between two purges of one queue.
const PURGE_PAUSE_MS: i64 = 60_000;

/// Most queues on a page.
const MOST_QUEUES: i32 = 1000;

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<CreateQueue, _, _, _>(create_queue);
    registry.on::<GetQueueUrl, _, _, _>(get_queue_url);
    registry.on::<ListQueues, _, _, _>(list_queues);
    registry.on::<ListDeadLetterSourceQueues, _, _, _>(list_dead_letter_source_queues);
    registry.on::<DeleteQueue, _, _, _>(delete_queue);
    registry.on::<PurgeQueue, _, _, _>(purge_queue);
    registry.on::<GetQueueAttributes, _, _, _>(get_queue_attributes);
    registry.on::<SetQueueAttributes, _, _, _>(set_queue_attributes);
}

async fn create_queue(cx: Cx, input: CreateQueueInput) -> Result<CreateQueueOutput> {
    let name = input.queue_name;
    let plain = name.strip_suffix(".fifo").unwrap_or(&name);
    let fits = plain.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if !fits || plain.is_empty() || name.len() > 80 {
        let text = "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length";
        return Err(Problem::new("InvalidParameterValue", text));
    }
    let given = input.attributes.unwrap_or_default();
    let settings = attributes::of_new_queue(&name, &given)?;
    let tags: Vec<(String, String)> = input.tags.unwrap_or_default().into_iter().collect();
    super::tags::check(&tags)?;
    let now_ms = cx.state.clock.now_ms();
    let queue = Queue {
        id: 0,
        account: cx.caller.account.clone(),
        region: cx.caller.region.clone(),
        arn: arn(&cx.caller.region, &cx.caller.account, &name),
        name,
        settings,
        created_at: now_ms,
        modified_at: now_ms,
        purged_at: None,
    };
    let shown = queue.clone();
    let made = cx.state.database.write(move |session| {
        if let Some(there) = session.queue(&queue.account, &queue.region, &queue.name)? {
            return Ok(differing(&there, &queue, &given).map_or(Ok(()), |name| {
                let text = format!(
                    "A queue already exists with the same name and a different value for attribute {name}"
                );
                Err(Problem::new("QueueNameExists", text))
            }));
        }
        if let Err(problem) = check_redrive(session, &queue.settings, &queue)? {
            return Ok(Err(problem));
        }
        session.insert_queue(&queue)?;
        session.put_tags(&queue.arn, &tags)?;
        Ok(Ok(()))
    });
    made.await??;
    Ok(CreateQueueOutput { queue_url: Some(url(&cx.state, &shown)) })
}

/// The first of the given attributes that is another one in the queue that is there.
fn differing<'a>(there: &Queue, wanted: &Queue, given: &'a BTreeMap<String, String>) -> Option<&'a str> {
    let of = |queue: &Queue| attributes::to_wire(queue, MessageCounts::default());
    let (there, wanted) = (of(there), of(wanted));
    given.keys().map(String::as_str).find(|name| there.get(*name) != wanted.get(*name))
}

fn check_redrive(
    session: &Session<'_>,
    settings: &QueueSettings,
    queue: &Queue,
) -> store::Result<Result<()>> {
    let target = match &settings.redrive {
        Some(redrive) => session.queue_by_arn(&redrive.dead_letter_arn)?,
        None => None,
    };
    Ok(attributes::check_redrive(settings, &queue.arn, &queue.account, target.as_ref()))
}

async fn get_queue_url(cx: Cx, input: GetQueueUrlInput) -> Result<GetQueueUrlOutput> {
    if input.queue_owner_aws_account_id.is_some_and(|owner| owner != cx.caller.account) {
        return Err(Problem::missing());
    }
    let queue = find(&cx, &format!("/{}/{}", cx.caller.account, input.queue_name)).await?;
    Ok(GetQueueUrlOutput { queue_url: Some(url(&cx.state, &queue)) })
}

async fn list_queues(cx: Cx, input: ListQueuesInput) -> Result<ListQueuesOutput> {
    let after = position(input.next_token.as_deref())?;
    let limit = page_size(input.max_results)?;
    let prefix = input.queue_name_prefix.unwrap_or_default();
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let read =
        cx.state.database.read(move |session| session.queues(&account, &region, &prefix, &after, limit + 1));
    // Without a limit of the caller's there is no second page.
    let (urls, next_token) = page(&cx, read.await?, limit, input.max_results.is_some());
    Ok(ListQueuesOutput { queue_urls: Some(urls).filter(|urls| !urls.is_empty()), next_token })
}

async fn list_dead_letter_source_queues(
    cx: Cx,
    input: ListDeadLetterSourceQueuesInput,
) -> Result<ListDeadLetterSourceQueuesOutput> {
    let after = position(input.next_token.as_deref())?;
    let limit = page_size(input.max_results)?;
    let queue = find(&cx, &input.queue_url).await?;
    let mut sources = cx.state.database.read(move |session| session.dead_letter_sources(&queue)).await?;
    sources.retain(|source| source.name > after);
    let (urls, next_token) = page(&cx, sources, limit, input.max_results.is_some());
    Ok(ListDeadLetterSourceQueuesOutput { queue_urls: Some(urls), next_token })
}

fn page(cx: &Cx, mut queues: Vec<Queue>, limit: usize, paged: bool) -> (Vec<String>, Option<String>) {
    let more = queues.len() > limit;
    queues.truncate(limit);
    let next_token = queues.last().filter(|_| more && paged).map(|queue| URL_SAFE_NO_PAD.encode(&queue.name));
    (queues.iter().map(|queue| url(&cx.state, queue)).collect(), next_token)
}

fn page_size(asked: Option<i32>) -> Result<usize> {
    match asked.unwrap_or(MOST_QUEUES) {
        limit @ 1..=MOST_QUEUES => Ok(limit.unsigned_abs() as usize),
        limit => Err(Problem::parameter(limit, "MaxResults", "Must be between 1 and 1000.")),
    }
}

fn position(token: Option<&str>) -> Result<String> {
    let Some(token) = token else { return Ok(String::new()) };
    let name = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    name.ok_or_else(|| Problem::new("InvalidParameterValue", "Invalid or expired next token."))
}

async fn delete_queue(cx: Cx, input: DeleteQueueInput) -> Result<DeleteQueueOutput> {
    let queue = find(&cx, &input.queue_url).await?;
    let id = queue.id;
    cx.state.database.write(move |session| session.delete_queue(&queue)).await?;
    cx.state.queue_waiters.ring(id);
    Ok(DeleteQueueOutput::default())
}

async fn purge_queue(cx: Cx, input: PurgeQueueInput) -> Result<PurgeQueueOutput> {
    let queue = find(&cx, &input.queue_url).await?;
    let now_ms = cx.state.clock.now_ms();
    if queue.purged_at.is_some_and(|purged_at| now_ms - purged_at < PURGE_PAUSE_MS) {
        let text = format!("Only one PurgeQueue operation on {} is allowed every 60 seconds.", queue.name);
        return Err(Problem::new("PurgeQueueInProgress", text));
    }
    cx.state.database.write(move |session| session.purge_queue(queue.id, now_ms)).await?;
    Ok(PurgeQueueOutput::default())
}

async fn get_queue_attributes(cx: Cx, input: GetQueueAttributesInput) -> Result<GetQueueAttributesOutput> {
    let queue = find(&cx, &input.queue_url).await?;
    let now_ms = cx.state.clock.now_ms();
    let asked = input.attribute_names.unwrap_or_default();
    let read = cx.state.database.read(move |session| {
        let counts = session.count_messages(&queue, now_ms)?;
        Ok(attributes::to_wire(&queue, counts))
    });
    let mut all = read.await?;
    all.retain(|name, _| asked.iter().any(|asked| asked.as_str() == "All" || asked.as_str() == name));
    Ok(GetQueueAttributesOutput { attributes: Some(all).filter(|all| !all.is_empty()) })
}

async fn set_queue_attributes(cx: Cx, input: SetQueueAttributesInput) -> Result<SetQueueAttributesOutput> {
    let queue = find(&cx, &input.queue_url).await?;
    let id = queue.id;
    let mut settings = queue.settings.clone();
    let is_fifo = settings.fifo.is_some().to_string();
    let mut given = input.attributes;
    if given.get("FifoQueue").is_some_and(|value| *value != is_fifo) {
        let text =
            "Invalid value for the parameter FifoQueue. A queue stays of the type that it was made with.";
        return Err(Problem::new("InvalidAttributeValue", text));
    }
    given.remove("FifoQueue");
    attributes::change(&mut settings, &given)?;
    let now_ms = cx.state.clock.now_ms();
    let changed = cx.state.database.write(move |session| {
        if let Err(problem) = check_redrive(session, &settings, &queue)? {
            return Ok(Err(problem));
        }
        session.set_queue_settings(queue.id, &settings, now_ms)?;
        Ok(Ok(()))
    });
    changed.await??;
    cx.state.queue_waiters.ring(id);
    Ok(SetQueueAttributesOutput::default())
}
