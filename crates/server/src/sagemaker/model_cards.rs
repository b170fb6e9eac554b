//! Model cards: what is said of a model for those who decide on it. Each change of the content is a version.

use api::sagemaker::{
    CreateModelCard, CreateModelCardInput, CreateModelCardOutput, DeleteModelCard, DeleteModelCardInput,
    DeleteModelCardOutput, DescribeModelCard, DescribeModelCardInput, DescribeModelCardOutput,
    ListModelCardVersions, ListModelCardVersionsInput, ListModelCardVersionsOutput, ListModelCards,
    ListModelCardsInput, ListModelCardsOutput, ModelCardSummary, ModelCardVersionSummary, UpdateModelCard,
    UpdateModelCardInput, UpdateModelCardOutput,
};
use serde_json::{Value, json};
use store::Session;
use store::resources::{ListQuery, Resource, ResourceKey, SortBy};

use super::kinds::{MODEL_CARD, MODEL_CARD_EXPORT_JOB, MODEL_CARD_VERSION};
use super::{fields, listing, records};
use crate::registry::card::{self, CardRecord};
use crate::registry::card_content;
use crate::registry::package::Author;
use crate::{Cx, Error, Registry, Result};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<CreateModelCard, _, _, _>(create_model_card);
    registry.on::<DescribeModelCard, _, _, _>(describe_model_card);
    registry.on::<UpdateModelCard, _, _, _>(update_model_card);
    registry.on::<ListModelCards, _, _, _>(list_model_cards);
    registry.on::<ListModelCardVersions, _, _, _>(list_model_card_versions);
    registry.on::<DeleteModelCard, _, _, _>(delete_model_card);
}

/// Rows on a page when the caller names no number, as in the service.
const DEFAULT_ROWS: i32 = 10;

/// Rows that go with a deleted card at a time.
const BATCH: usize = 200;

async fn create_model_card(cx: Cx, input: CreateModelCardInput) -> Result<CreateModelCardOutput> {
    fields::check(&cx.input, &["ModelCardName", "Content", "ModelCardStatus", "Tags.**"])?;
    card_content::check_card(&input.content).map_err(Error::Validation)?;
    let tags = records::tag_pairs(input.tags.as_deref())?;
    let record = CardRecord { version: 1, created_by: Author::of(&cx.caller), modified_by: None };
    let status = input.model_card_status.to_string();
    let mut resource =
        records::new_resource(&cx, MODEL_CARD, &input.model_card_name, &status, record.to_document());
    if let Some(members) = resource.spec.as_object_mut() {
        members.remove("ModelCardStatus");
    }
    let arn = resource.arn.clone();
    let created = cx.state.database.write(move |session| {
        session.insert_resource(&resource)?;
        session.put_tags(&resource.arn, &tags)?;
        insert_version(session, &resource, &record)?;
        session.append_event(&resource.key, "Created", &resource.spec, resource.created_at)
    });
    match created.await {
        Ok(()) => Ok(CreateModelCardOutput { model_card_arn: Some(arn) }),
        Err(store::Error::Exists { .. }) => Err(Error::Conflict(format!("Model card {arn} already exists."))),
        Err(other) => Err(other.into()),
    }
}

/// Adds the card's present state as a version of its own.
fn insert_version(session: &Session<'_>, card: &Resource, record: &CardRecord) -> store::Result<()> {
    session.insert_resource(&Resource {
        key: card::version_key(&card.key, record.version),
        arn: format!("{}/version/{}", card.arn, record.version),
        document: record.to_document(),
        ..card.clone()
    })
}

/// A card of the caller's account, by name or ARN.
pub async fn find(cx: &Cx, reference: &str) -> Result<Resource> {
    let name = match reference.split_once(":model-card/") {
        None => reference,
        Some((_, name)) => {
            let wanted = records::arn(cx, MODEL_CARD, name);
            let given = reference.to_lowercase();
            let found = cx.state.database.read(move |session| session.find_resource_by_arn(&given)).await?;
            return found
                .filter(|found| found.arn == wanted)
                .ok_or_else(|| Error::not_found(MODEL_CARD, reference));
        }
    };
    records::find(cx, MODEL_CARD, name).await
}

/// A version of a card; the present one unless named.
pub async fn version(cx: &Cx, card: &Resource, version: Option<i32>) -> Result<Resource> {
    let wanted = match version {
        None => CardRecord::read(&card.document)?.version,
        Some(version) => u32::try_from(version).unwrap_or(0),
    };
    let key = card::version_key(&card.key, wanted);
    let found = cx.state.database.read(move |session| session.find_resource(&key)).await?;
    found.ok_or_else(|| Error::not_found(MODEL_CARD, format!("{} version {wanted}", card.arn)))
}

async fn describe_model_card(cx: Cx, input: DescribeModelCardInput) -> Result<DescribeModelCardOutput> {
    let card = find(&cx, &input.model_card_name).await?;
    let shown = version(&cx, &card, input.model_card_version).await?;
    let (card_record, record) = (CardRecord::read(&card.document)?, CardRecord::read(&shown.document)?);
    let content = shown.spec["Content"].as_str().unwrap_or_default();
    let is_whole = input.included_data.is_none_or(|data| data.as_str() != "MetadataOnly");
    let modified_by = record.modified_by.as_ref().unwrap_or(&record.created_by);
    records::described(
        &card,
        json!({
            "ModelCardArn": card.arn,
            "ModelCardVersion": record.version,
            "Content": if is_whole { content.to_owned() } else { card_content::metadata_of(content) },
            "ModelCardStatus": shown.status,
            "CreationTime": records::seconds(card.created_at),
            "CreatedBy": card_record.created_by.user_context(),
            "LastModifiedTime": records::seconds(shown.modified_at),
            "LastModifiedBy": modified_by.user_context(),
        }),
    )
}

async fn update_model_card(cx: Cx, input: UpdateModelCardInput) -> Result<UpdateModelCardOutput> {
    fields::check(&cx.input, &["ModelCardName", "Content", "ModelCardStatus"])?;
    if let Some(content) = &input.content {
        card_content::check_card(content).map_err(Error::Validation)?;
    }
    let status = input.model_card_status.map(|status| status.to_string());
    match (&input.content, &status) {
        (Some(_), Some(_)) => {
            let text = "Content and ModelCardStatus cannot both be updated in one request.";
            return Err(Error::Validation(text.into()));
        }
        (None, None) => return Err(Error::Validation("Content or ModelCardStatus must be given.".into())),
        _ => {}
    }
    let card = find(&cx, &input.model_card_name).await?;
    let (key, author, now_ms) = (card.key, Author::of(&cx.caller), cx.state.clock.now_ms());
    let detail = cx.input.clone();
    let updated = cx.state.database.write(move |session| {
        let event = |what: &str| session.append_event(&key, what, &detail, now_ms);
        match (input.content, status) {
            (Some(content), _) => set_content(session, &key, content, author, now_ms)?,
            (None, Some(status)) => set_status(session, &key, &status, &author, now_ms)?,
            (None, None) => {}
        }
        event("Updated")
    });
    match updated.await {
        Ok(()) => Ok(UpdateModelCardOutput { model_card_arn: Some(card.arn) }),
        Err(store::Error::Missing { .. }) => Err(Error::not_found(MODEL_CARD, card.arn)),
        Err(store::Error::WrongStatus { .. }) => Err(Error::Conflict(format!(
            "Model card {} is Archived: its content cannot be changed any more.",
            card.arn
        ))),
        Err(other) => Err(other.into()),
    }
}

/// New content is a new version.
fn set_content(
    session: &Session<'_>,
    key: &ResourceKey,
    content: String,
    author: Author,
    now_ms: i64,
) -> store::Result<()> {
    let mut record = CardRecord::read(&session.resource(key)?.document)?;
    record.version += 1;
    record.modified_by = Some(author.clone());
    let document = record.to_document();
    let card = session.update_resource(key, now_ms, |card| {
        if card.status == "Archived" {
            return Err(store::Error::WrongStatus {
                kind: MODEL_CARD.into(),
                name: card.key.name.clone(),
                status: card.status.clone(),
            });
        }
        card.spec["Content"] = Value::from(content);
        card.document = document;
        Ok(())
    })?;
    let version = CardRecord { version: record.version, created_by: author, modified_by: None };
    insert_version(session, &Resource { created_at: now_ms, ..card }, &version)
}

/// A status is set on the present version and makes no new one, as in the service.
fn set_status(
    session: &Session<'_>,
    key: &ResourceKey,
    status: &str,
    author: &Author,
    now_ms: i64,
) -> store::Result<()> {
    let version = CardRecord::read(&session.resource(key)?.document)?.version;
    for key in [key.clone(), card::version_key(key, version)] {
        session.update_resource(&key, now_ms, |resource| {
            let mut record = CardRecord::read(&resource.document)?;
            record.modified_by = Some(author.clone());
            resource.document = record.to_document();
            resource.status = status.to_owned();
            Ok(())
        })?;
    }
    Ok(())
}

async fn list_model_cards(cx: Cx, input: ListModelCardsInput) -> Result<ListModelCardsOutput> {
    let filters = listing::Filters {
        name_contains: input.name_contains,
        status: input.model_card_status.map(|status| status.to_string()),
        created_after: input.creation_time_after,
        created_before: input.creation_time_before,
        sort_by: input.sort_by.map(|column| column.to_string()),
        sort_order: input.sort_order.map(|order| order.to_string()),
        max_results: input.max_results,
        next_token: input.next_token,
        ..Default::default()
    };
    let page = listing::page(&cx, MODEL_CARD, filters, "Descending").await?;
    let cards = page.resources.iter().map(|card| {
        let shown = json!({
            "ModelCardName": card.key.name,
            "ModelCardArn": card.arn,
            "ModelCardStatus": card.status,
            "CreationTime": records::seconds(card.created_at),
            "LastModifiedTime": records::seconds(card.modified_at),
        });
        serde_json::from_value(shown).map_err(Error::internal)
    });
    let cards: Vec<ModelCardSummary> = cards.collect::<Result<_>>()?;
    Ok(ListModelCardsOutput { model_card_summaries: Some(cards), next_token: page.next_token })
}

async fn list_model_card_versions(
    cx: Cx,
    input: ListModelCardVersionsInput,
) -> Result<ListModelCardVersionsOutput> {
    let card = find(&cx, &input.model_card_name).await?;
    let query = ListQuery {
        below: Some(card.key.name.clone()),
        status: input.model_card_status.map(|status| status.to_string()),
        created_after: input.creation_time_after.map(|at| at.as_millis()),
        created_before: input.creation_time_before.map(|at| at.as_millis()),
        sort_by: SortBy::Name,
        descending: input.sort_order.is_none_or(|order| order.as_str() == "Descending"),
        limit: input.max_results.unwrap_or(DEFAULT_ROWS).max(1) as usize,
        next_token: input.next_token,
        ..Default::default()
    };
    let key = card.key.clone();
    let page = cx
        .state
        .database
        .read(move |session| session.list_resources(&key.account, &key.region, MODEL_CARD_VERSION, &query));
    let page = page.await?;
    let versions = page.resources.iter().map(|version| {
        let shown = json!({
            "ModelCardName": card.key.name,
            "ModelCardArn": card.arn,
            "ModelCardStatus": version.status,
            "ModelCardVersion": CardRecord::read(&version.document)?.version,
            "CreationTime": records::seconds(version.created_at),
            "LastModifiedTime": records::seconds(version.modified_at),
        });
        serde_json::from_value(shown).map_err(Error::internal)
    });
    let versions: Vec<ModelCardVersionSummary> = versions.collect::<Result<_>>()?;
    Ok(ListModelCardVersionsOutput {
        model_card_version_summary_list: Some(versions),
        next_token: page.next_token,
    })
}

async fn delete_model_card(cx: Cx, input: DeleteModelCardInput) -> Result<DeleteModelCardOutput> {
    let card = find(&cx, &input.model_card_name).await?;
    let (key, arn, now_ms) = (card.key, card.arn, cx.state.clock.now_ms());
    let deleted = cx.state.database.write(move |session| {
        session.delete_resource(&key)?;
        for kind in [MODEL_CARD_VERSION, MODEL_CARD_EXPORT_JOB] {
            let query = ListQuery { below: Some(key.name.clone()), limit: BATCH, ..Default::default() };
            loop {
                let page = session.list_resources(&key.account, &key.region, kind, &query)?;
                for row in &page.resources {
                    session.delete_resource(&row.key)?;
                }
                if page.next_token.is_none() {
                    break;
                }
            }
        }
        session.append_event(&key, "Deleted", &Value::Null, now_ms)
    });
    match deleted.await {
        Ok(()) => Ok(DeleteModelCardOutput::default()),
        Err(store::Error::Missing { .. }) => Err(Error::not_found(MODEL_CARD, arn)),
        Err(other) => Err(other.into()),
    }
}
