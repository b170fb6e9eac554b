//! Aliases of keys.

use api::Timestamp;
use api::kms::{
    AliasListEntry, CreateAlias, CreateAliasInput, CreateAliasOutput, DeleteAlias, DeleteAliasInput,
    DeleteAliasOutput, ListAliases, ListAliasesInput, ListAliasesOutput, UpdateAlias, UpdateAliasInput,
    UpdateAliasOutput,
};
use store::keys::{Alias, Naming};

use super::error::{Problem, Result};
use super::{find, id_reference, page, page_size};
use crate::{Cx, Registry};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<CreateAlias, _, _, _>(create_alias);
    registry.on::<UpdateAlias, _, _, _>(update_alias);
    registry.on::<DeleteAlias, _, _, _>(delete_alias);
    registry.on::<ListAliases, _, _, _>(list_aliases);
}

async fn create_alias(cx: Cx, input: CreateAliasInput) -> Result<CreateAliasOutput> {
    point(&cx, &input.alias_name, &input.target_key_id, Naming::New).await?;
    Ok(CreateAliasOutput::default())
}

async fn update_alias(cx: Cx, input: UpdateAliasInput) -> Result<UpdateAliasOutput> {
    point(&cx, &input.alias_name, &input.target_key_id, Naming::Present).await?;
    Ok(UpdateAliasOutput::default())
}

/// Points a name at the key that the request names.
async fn point(cx: &Cx, name: &str, target_key_id: &str, naming: Naming) -> Result<()> {
    check_name(name)?;
    let key = id_reference(cx, target_key_id)?;
    let pointed = cx.state.keys.point_alias(&cx.caller.account, &cx.caller.region, name, &key, naming).await;
    pointed.map_err(|error| Problem::of_key(cx, error))
}

async fn delete_alias(cx: Cx, input: DeleteAliasInput) -> Result<DeleteAliasOutput> {
    check_name(&input.alias_name)?;
    let removed = cx.state.keys.delete_alias(&cx.caller.account, &cx.caller.region, &input.alias_name).await;
    removed.map_err(|error| Problem::of_key(&cx, error))?;
    Ok(DeleteAliasOutput::default())
}

/// Refuses names that are none, and those of the server's own keys.
fn check_name(name: &str) -> Result<()> {
    let rest = name.strip_prefix("alias/").filter(|rest| !rest.is_empty());
    let text = match rest {
        None => "Alias must start with the prefix \"alias/\" and a name after it.",
        Some(rest) if rest.starts_with("aws/") => "Aliases that begin with alias/aws/ are reserved.",
        Some(rest) if rest.contains(':') => "An alias has letters, digits, slashes, underscores and hyphens.",
        Some(_) => return Ok(()),
    };
    let code = if rest.is_some_and(|rest| rest.starts_with("aws/")) {
        "NotAuthorizedException"
    } else {
        "InvalidAliasNameException"
    };
    Err(Problem::Code(code, text.into()))
}

async fn list_aliases(cx: Cx, input: ListAliasesInput) -> Result<ListAliasesOutput> {
    let key = match &input.key_id {
        None => None,
        Some(key_id) => {
            id_reference(&cx, key_id)?;
            Some(find(&cx, key_id).await?.id)
        }
    };
    let (account, region) = (&cx.caller.account, &cx.caller.region);
    let size = page_size(input.limit);
    let after = input.marker.unwrap_or_default();
    let found = cx.state.keys.aliases(account, region, key, &after, size + 1).await?;
    let (found, next_marker) = page(found, size, |alias| alias.name.clone());
    let entry = |alias: Alias| AliasListEntry {
        alias_arn: Some(format!("arn:aws:kms:{region}:{account}:{}", alias.name)),
        alias_name: Some(alias.name),
        target_key_id: Some(alias.key),
        creation_date: Some(Timestamp::from_millis(alias.created_at)),
        last_updated_date: Some(Timestamp::from_millis(alias.updated_at)),
    };
    Ok(ListAliasesOutput {
        aliases: Some(found.into_iter().map(entry).collect()),
        truncated: Some(next_marker.is_some()),
        next_marker,
    })
}
