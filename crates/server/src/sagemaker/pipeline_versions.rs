//! Versions of pipelines and their aliases.

use api::sagemaker::{
    ListPipelineVersions, ListPipelineVersionsInput, ListPipelineVersionsOutput, UpdatePipelineVersion,
    UpdatePipelineVersionInput, UpdatePipelineVersionOutput,
};
use serde_json::{Value, json};
use store::Session;
use store::pipelines::PipelineVersion;
use store::resources::{Resource, ResourceKey};

use super::{pipelines, records};
use crate::{Cx, Error, Registry, Result};

/// Most aliases of all versions of a pipeline, as in the service.
const MOST_ALIASES: usize = 10;

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<ListPipelineVersions, _, _, _>(list_pipeline_versions);
    registry.on::<UpdatePipelineVersion, _, _, _>(update_pipeline_version);
}

async fn list_pipeline_versions(
    cx: Cx,
    input: ListPipelineVersionsInput,
) -> Result<ListPipelineVersionsOutput> {
    let pipeline = pipelines::find(&cx, &input.pipeline_name).await?;
    let key = pipeline.key.clone();
    let mut versions = cx.state.database.read(move |session| session.pipeline_versions(&key)).await?;
    let (after, before) = (input.created_after, input.created_before);
    versions.retain(|version| {
        after.is_none_or(|bound| version.created_at > bound.as_millis())
            && before.is_none_or(|bound| version.created_at < bound.as_millis())
    });
    let ascending = input.sort_order.is_some_and(|order| order.as_str() == "Ascending");
    if ascending {
        versions.reverse();
    }
    if let Some(token) = &input.next_token {
        let seen: i64 = token
            .parse()
            .map_err(|_| Error::Validation("The pagination token NextToken is not valid.".into()))?;
        versions.retain(|version| if ascending { version.version > seen } else { version.version < seen });
    }
    let limit = input.max_results.unwrap_or(10).max(1) as usize;
    let more = versions.len() > limit;
    versions.truncate(limit);
    let next_token = versions.last().filter(|_| more).map(|last| last.version.to_string());
    let summaries: Vec<Value> = versions
        .iter()
        .map(|version| {
            json!({
                "PipelineArn": pipeline.arn,
                "PipelineVersionId": version.version,
                "CreationTime": records::seconds(version.created_at),
                "PipelineVersionDisplayName": version.document["DisplayName"],
                "PipelineVersionDescription": version.document["Description"],
                "LastExecutionPipelineExecutionArn": version.document["LastExecutionArn"],
                "PipelineVersionAliases": version.document["Aliases"],
            })
        })
        .collect();
    answer(json!({"PipelineVersionSummaries": summaries, "NextToken": next_token}))
}

async fn update_pipeline_version(
    cx: Cx,
    input: UpdatePipelineVersionInput,
) -> Result<UpdatePipelineVersionOutput> {
    let pipeline = pipelines::find(&cx, &input.pipeline_arn).await?;
    let version = find(&cx, &pipeline, Some(input.pipeline_version_id), None).await?.version;
    let (raw, key, now_ms) = (cx.input.clone(), pipeline.key.clone(), cx.state.clock.now_ms());
    let written = cx.state.database.write(move |session| {
        let Some(mut found) = session.pipeline_version(&key, Some(version))? else { return Ok(()) };
        for (member, name) in
            [("PipelineVersionDisplayName", "DisplayName"), ("PipelineVersionDescription", "Description")]
        {
            if let Some(value) = raw.get(member) {
                found.document[name] = value.clone();
            }
        }
        session.set_pipeline_version(&key, version, &found.document)?;
        let operations = &raw["PipelineVersionAliasOperations"];
        assign(session, &key, version, &texts(&operations["Add"]), &texts(&operations["Remove"]))?;
        session.append_event(&key, "VersionUpdated", &json!({"PipelineVersionId": version}), now_ms)
    });
    written.await.map_err(refused)?;
    Ok(UpdatePipelineVersionOutput { pipeline_arn: Some(pipeline.arn), pipeline_version_id: Some(version) })
}

/// The version with this number or alias; the newest one when neither is given.
///
/// # Errors
/// [`Error::NotFound`], or [`Error::Validation`] when both are given.
pub async fn find(
    cx: &Cx,
    pipeline: &Resource,
    version: Option<i64>,
    alias: Option<&str>,
) -> Result<PipelineVersion> {
    if version.is_some() && alias.is_some() {
        let text = "PipelineVersionId and PipelineVersionAlias cannot both be given.";
        return Err(Error::Validation(text.into()));
    }
    let (key, wanted) = (pipeline.key.clone(), alias.map(str::to_owned));
    let found = cx.state.database.read(move |session| {
        let Some(alias) = wanted else { return session.pipeline_version(&key, version) };
        let all = session.pipeline_versions(&key)?;
        let named = all.iter().find(|one| texts(&one.document["Aliases"]).contains(&alias));
        named.map_or(Ok(None), |one| session.pipeline_version(&key, Some(one.version)))
    });
    found.await?.ok_or_else(|| {
        let which = alias.map_or_else(|| version.unwrap_or_default().to_string(), str::to_owned);
        Error::not_found("pipeline version", format!("{which} of {}", pipeline.arn))
    })
}

/// Gives a version aliases, which leave the versions that had them, and takes aliases from it.
///
/// # Errors
/// [`store::Error::Invalid`] when the pipeline would have too many, or the version lacks one to remove.
pub fn assign(
    session: &Session<'_>,
    pipeline: &ResourceKey,
    version: i64,
    add: &[String],
    remove: &[String],
) -> store::Result<()> {
    if add.is_empty() && remove.is_empty() {
        return Ok(());
    }
    let mut count = 0;
    for mut one in session.pipeline_versions(pipeline)? {
        let before = texts(&one.document["Aliases"]);
        let mut aliases = before.clone();
        aliases.retain(|alias| !add.contains(alias));
        if one.version == version {
            if let Some(missing) = remove.iter().find(|alias| !aliases.contains(alias)) {
                return Err(store::Error::Invalid(format!(
                    "PipelineVersionAliasOperations.Remove: version {version} has no alias {missing:?}."
                )));
            }
            aliases.retain(|alias| !remove.contains(alias));
            aliases.extend(add.iter().cloned());
            aliases.dedup();
        }
        count += aliases.len();
        if aliases != before {
            one.document["Aliases"] = json!(aliases);
            session.set_pipeline_version(pipeline, one.version, &one.document)?;
        }
    }
    if count > MOST_ALIASES {
        return Err(store::Error::Invalid(format!(
            "A pipeline has at most {MOST_ALIASES} version aliases; these would make {count}."
        )));
    }
    Ok(())
}

/// A rule that a write found broken, as the caller sees it.
pub fn refused(error: store::Error) -> Error {
    match error {
        store::Error::Precondition(text) => Error::Conflict(text),
        other => other.into(),
    }
}

/// The texts of a list; none when there is no list.
pub fn texts(value: &Value) -> Vec<String> {
    let elements = value.as_array().into_iter().flatten();
    elements.filter_map(|element| element.as_str().map(str::to_owned)).collect()
}

/// A typed output from its wire form; what is null is left out.
///
/// # Errors
/// [`Error::Internal`] when it does not fit the model.
pub fn answer<T: serde::de::DeserializeOwned>(mut value: Value) -> Result<T> {
    drop_nulls(&mut value);
    serde_json::from_value(value).map_err(Error::internal)
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.iter_mut().for_each(|(_, member)| drop_nulls(member));
        }
        Value::Array(elements) => elements.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
