//! Log streams: create, describe, delete.

use api::logs::{
    CreateLogStream, CreateLogStreamInput, CreateLogStreamOutput, DeleteLogStream, DeleteLogStreamInput,
    DeleteLogStreamOutput, DescribeLogStreams, DescribeLogStreamsInput, DescribeLogStreamsOutput, OrderBy,
};
use serde::{Deserialize, Serialize};
use store::logs::{GroupKey, LogStream, StreamList, last_event_position};

use super::{
    PAGE_ITEMS, bad_token, decode_token, encode_token, group_arn, group_key, named_group, page_limit, refusal,
};
use crate::{Cx, Error, Registry, Result};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<CreateLogStream, _, _, _>(create_log_stream);
    registry.on::<DeleteLogStream, _, _, _>(delete_log_stream);
    registry.on::<DescribeLogStreams, _, _, _>(describe_log_streams);
}

async fn create_log_stream(cx: Cx, input: CreateLogStreamInput) -> Result<CreateLogStreamOutput> {
    let key = named_group(&cx, input.log_group_name).stream(input.log_stream_name);
    cx.state.logs.create_stream(key).await.map_err(refusal)?;
    Ok(CreateLogStreamOutput::default())
}

async fn delete_log_stream(cx: Cx, input: DeleteLogStreamInput) -> Result<DeleteLogStreamOutput> {
    let key = named_group(&cx, input.log_group_name).stream(input.log_stream_name);
    cx.state.logs.delete_stream(key).await.map_err(refusal)?;
    Ok(DeleteLogStreamOutput::default())
}

/// Where a list left off; it holds the order, so that it cannot be used with another.
#[derive(Serialize, Deserialize)]
struct Position {
    by_last_event: bool,
    descending: bool,
    last_event_at: i64,
    name: String,
}

async fn describe_log_streams(cx: Cx, input: DescribeLogStreamsInput) -> Result<DescribeLogStreamsOutput> {
    let group = group_key(&cx, input.log_group_name, input.log_group_identifier)?;
    let by_last_event = matches!(input.order_by, Some(OrderBy::LastEventTime));
    if by_last_event && input.log_stream_name_prefix.is_some() {
        return Err(Error::invalid_parameter("Cannot order by LastEventTime with a logStreamNamePrefix."));
    }
    let descending = input.descending.unwrap_or(false);
    let after: Option<Position> = input.next_token.as_deref().map(decode_token).transpose()?;
    if after
        .as_ref()
        .is_some_and(|after| (after.by_last_event, after.descending) != (by_last_event, descending))
    {
        return Err(bad_token());
    }
    let limit = page_limit(input.limit, PAGE_ITEMS);
    let logs = &cx.state.logs;
    let listed = if by_last_event {
        let after = after.map(|after| (after.last_event_at, after.name));
        logs.streams_by_last_event(group.clone(), after, descending, limit + 1).await
    } else {
        let prefix = input.log_stream_name_prefix;
        let list = StreamList { prefix, after: after.map(|after| after.name), descending, limit: limit + 1 };
        logs.streams(group.clone(), list).await
    };
    let mut streams = listed.map_err(refusal)?;
    let more = streams.len() > limit;
    streams.truncate(limit);
    let next_token = match streams.last() {
        Some(last) if more => {
            let (last_event_at, name) = last_event_position(last);
            Some(encode_token(&Position { by_last_event, descending, last_event_at, name: name.to_owned() })?)
        }
        _ => None,
    };
    let streams = streams.into_iter().map(|stream| described(&group, stream)).collect();
    Ok(DescribeLogStreamsOutput { log_streams: Some(streams), next_token })
}

fn described(group: &GroupKey, stream: LogStream) -> api::logs::LogStream {
    api::logs::LogStream {
        arn: Some(format!("{}:log-stream:{}", group_arn(group), stream.name)),
        creation_time: Some(stream.created_at),
        first_event_timestamp: stream.extent.map(|extent| extent.first_event_at),
        last_event_timestamp: stream.extent.map(|extent| extent.last_event_at),
        last_ingestion_time: stream.extent.map(|extent| extent.last_ingestion_at),
        stored_bytes: Some(
            stream.extent.map_or(0, |extent| i64::try_from(extent.stored_bytes).unwrap_or(i64::MAX)),
        ),
        log_stream_name: Some(stream.name),
        ..Default::default()
    }
}
