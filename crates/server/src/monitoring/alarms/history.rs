//! DescribeAlarmHistory.

use api::Timestamp;
use api::cloudwatch::{
    AlarmHistoryItem, AlarmType, DescribeAlarmHistory, DescribeAlarmHistoryInput, DescribeAlarmHistoryOutput,
    HistoryItemType, ScanBy,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use store::alarms::{HistoryPosition, HistoryQuery};

use super::{Refusal, Result};
use crate::{Cx, Error, Registry};

/// Items on a page, unless the caller wants another number.
const PAGE_ITEMS: usize = 100;

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on::<DescribeAlarmHistory, _, _, _>(describe_alarm_history);
}

async fn describe_alarm_history(
    cx: Cx,
    input: DescribeAlarmHistoryInput,
) -> Result<DescribeAlarmHistoryOutput> {
    if input.alarm_contributor_id.is_some() {
        return Err(Error::field("AlarmContributorId").into());
    }
    let limit = input.max_records.and_then(|most| usize::try_from(most).ok()).unwrap_or(PAGE_ITEMS);
    let types = input.alarm_types.unwrap_or_default();
    let query = HistoryQuery {
        alarm: input.alarm_name,
        alarm_types: types.iter().map(|kind| kind.as_str().to_owned()).collect(),
        kind: input.history_item_type.map(|kind| kind.as_str().to_owned()),
        from_ms: input.start_date.map(Timestamp::as_millis),
        to_ms: input.end_date.map(Timestamp::as_millis),
        descending: input.scan_by != Some(ScanBy::TimestampAscending),
        after: input.next_token.as_deref().map(decode).transpose()?,
        limit: limit + 1,
    };
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let read = cx.state.database.read(move |session| session.alarm_history(&account, &region, &query));
    let mut found = read.await?;
    let has_more = found.len() > limit;
    found.truncate(limit);
    let next_token = found.last().filter(|_| has_more).map(|(position, _)| encode(*position));
    let items = found.into_iter().map(|(_, item)| AlarmHistoryItem {
        alarm_name: Some(item.alarm),
        alarm_type: Some(AlarmType::from(&*item.alarm_type)),
        timestamp: Some(Timestamp::from_millis(item.at)),
        history_item_type: Some(HistoryItemType::from(&*item.kind)),
        history_summary: Some(item.summary),
        history_data: Some(item.data),
        ..AlarmHistoryItem::default()
    });
    Ok(DescribeAlarmHistoryOutput { alarm_history_items: Some(items.collect()), next_token })
}

fn encode((at, sequence): HistoryPosition) -> String {
    URL_SAFE_NO_PAD.encode(format!("{at}.{sequence}"))
}

fn decode(token: &str) -> Result<HistoryPosition> {
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Refusal::Token)?;
    let text = String::from_utf8(bytes).map_err(|_| Refusal::Token)?;
    let (at, sequence) = text.split_once('.').ok_or(Refusal::Token)?;
    let number = |text: &str| text.parse::<i64>().map_err(|_| Refusal::Token);
    Ok((number(at)?, number(sequence)?))
}
