//! Keys: create, describe, list, enable, disable, delete.

use api::Timestamp;
use api::kms::{
    CancelKeyDeletion, CancelKeyDeletionInput, CancelKeyDeletionOutput, CreateKey, CreateKeyInput,
    CreateKeyOutput, CustomerMasterKeySpec, DescribeKey, DescribeKeyInput, DescribeKeyOutput, DisableKey,
    DisableKeyInput, DisableKeyOutput, EnableKey, EnableKeyInput, EnableKeyOutput, EncryptionAlgorithmSpec,
    KeyListEntry, KeyManagerType, KeyMetadata, KeySpec, KeyUsageType, ListKeys, ListKeysInput,
    ListKeysOutput, OriginType, ScheduleKeyDeletion, ScheduleKeyDeletionInput, ScheduleKeyDeletionOutput,
    UpdateKeyDescription, UpdateKeyDescriptionInput, UpdateKeyDescriptionOutput,
};
use store::keys::{Key, KeyProblem, KeyState};

use super::error::{Problem, Result};
use super::{arn, find, id_reference, page, page_size, policies, tags};
use crate::{Cx, Error, Registry};

/// Days until a key goes, unless the caller says otherwise.
const DEFAULT_PENDING_DAYS: i32 = 30;

/// Days that a caller may choose.
const PENDING_DAYS: std::ops::RangeInclusive<i32> = 7..=30;

/// Milliseconds of a day.
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<CreateKey, _, _, _>(create_key);
    registry.on::<DescribeKey, _, _, _>(describe_key);
    registry.on::<ListKeys, _, _, _>(list_keys);
    registry.on::<EnableKey, _, _, _>(enable_key);
    registry.on::<DisableKey, _, _, _>(disable_key);
    registry.on::<ScheduleKeyDeletion, _, _, _>(schedule_key_deletion);
    registry.on::<CancelKeyDeletion, _, _, _>(cancel_key_deletion);
    registry.on::<UpdateKeyDescription, _, _, _>(update_key_description);
}

async fn create_key(cx: Cx, input: CreateKeyInput) -> Result<CreateKeyOutput> {
    let other = |given: Option<&str>, done: &str| given.is_some_and(|given| given != done);
    for (name, is_other) in [
        ("KeyUsage", other(input.key_usage.as_ref().map(KeyUsageType::as_str), "ENCRYPT_DECRYPT")),
        ("KeySpec", other(input.key_spec.as_ref().map(KeySpec::as_str), "SYMMETRIC_DEFAULT")),
        (
            "CustomerMasterKeySpec",
            other(
                input.customer_master_key_spec.as_ref().map(CustomerMasterKeySpec::as_str),
                "SYMMETRIC_DEFAULT",
            ),
        ),
        ("Origin", other(input.origin.as_ref().map(OriginType::as_str), "AWS_KMS")),
        ("CustomKeyStoreId", input.custom_key_store_id.is_some()),
        ("MultiRegion", input.multi_region == Some(true)),
        ("XksKeyId", input.xks_key_id.is_some()),
    ] {
        if is_other {
            let text =
                format!("Modelyard has symmetric keys for encryption of its own alone; leave {name} out.");
            return Err(Problem::Code("UnsupportedOperationException", text));
        }
    }
    let (account, region) = (&cx.caller.account, &cx.caller.region);
    let policy = match input.policy {
        Some(policy) => policies::checked(policy)?,
        None => policies::default(account),
    };
    let tags = tags::pairs(input.tags.unwrap_or_default())?;
    let description = input.description.unwrap_or_default();
    let key = cx.state.keys.create(account, region, &description, &policy, tags, arn).await?;
    Ok(CreateKeyOutput { key_metadata: Some(metadata(&key)) })
}

async fn describe_key(cx: Cx, input: DescribeKeyInput) -> Result<DescribeKeyOutput> {
    refuse_grants(input.grant_tokens.as_ref())?;
    Ok(DescribeKeyOutput { key_metadata: Some(metadata(&find(&cx, &input.key_id).await?)) })
}

/// Grants are not done, so that there is nothing that a token could stand for.
pub fn refuse_grants(tokens: Option<&Vec<String>>) -> Result<()> {
    match tokens.is_some_and(|tokens| !tokens.is_empty()) {
        true => Err(Error::field("GrantTokens").into()),
        false => Ok(()),
    }
}

async fn list_keys(cx: Cx, input: ListKeysInput) -> Result<ListKeysOutput> {
    if input.resource_owners.is_some_and(|owners| !owners.is_empty()) {
        return Err(Error::field("ResourceOwners").into());
    }
    let size = page_size(input.limit);
    let after = input.marker.unwrap_or_default();
    let found = cx.state.keys.list(&cx.caller.account, &cx.caller.region, &after, size + 1).await?;
    let (found, next_marker) = page(found, size, |key| key.id.clone());
    let entry = |key: &Key| KeyListEntry { key_id: Some(key.id.clone()), key_arn: Some(arn(key)) };
    Ok(ListKeysOutput {
        keys: Some(found.iter().map(entry).collect()),
        truncated: Some(next_marker.is_some()),
        next_marker,
    })
}

async fn enable_key(cx: Cx, input: EnableKeyInput) -> Result<EnableKeyOutput> {
    set_state(&cx, &input.key_id, KeyState::Enabled).await?;
    Ok(EnableKeyOutput::default())
}

async fn disable_key(cx: Cx, input: DisableKeyInput) -> Result<DisableKeyOutput> {
    set_state(&cx, &input.key_id, KeyState::Disabled).await?;
    Ok(DisableKeyOutput::default())
}

async fn set_state(cx: &Cx, key_id: &str, state: KeyState) -> Result<()> {
    update(cx, key_id, move |key, _| {
        refuse_pending(key)?;
        key.state = state;
        Ok(())
    })
    .await
    .map(drop)
}

fn refuse_pending(key: &Key) -> Result<(), KeyProblem> {
    match key.state {
        KeyState::PendingDeletion => Err(KeyProblem::PendingDeletion(key.id.clone())),
        KeyState::Enabled | KeyState::Disabled => Ok(()),
    }
}

/// Changes a key that is named by id or ARN.
pub async fn update(
    cx: &Cx,
    key_id: &str,
    change: impl FnOnce(&mut Key, i64) -> Result<(), KeyProblem> + Send + 'static,
) -> Result<Key> {
    let reference = id_reference(cx, key_id)?;
    let changed = cx.state.keys.update(&cx.caller.account, &cx.caller.region, &reference, change).await;
    changed.map_err(|error| Problem::of_key(cx, error))
}

async fn schedule_key_deletion(cx: Cx, input: ScheduleKeyDeletionInput) -> Result<ScheduleKeyDeletionOutput> {
    let days = input.pending_window_in_days.unwrap_or(DEFAULT_PENDING_DAYS);
    if !PENDING_DAYS.contains(&days) {
        let text = format!("PendingWindowInDays: {days} is not between 7 and 30.");
        return Err(Error::Validation(text).into());
    }
    let key = update(&cx, &input.key_id, move |key, now_ms| {
        refuse_pending(key)?;
        key.state = KeyState::PendingDeletion;
        key.deletion_at = Some(now_ms + i64::from(days) * DAY_MS);
        Ok(())
    })
    .await?;
    Ok(ScheduleKeyDeletionOutput {
        key_id: Some(arn(&key)),
        deletion_date: key.deletion_at.map(Timestamp::from_millis),
        key_state: Some(api::kms::KeyState::PendingDeletion),
        pending_window_in_days: Some(days),
    })
}

async fn cancel_key_deletion(cx: Cx, input: CancelKeyDeletionInput) -> Result<CancelKeyDeletionOutput> {
    let key = update(&cx, &input.key_id, |key, _| {
        if key.state != KeyState::PendingDeletion {
            return Err(KeyProblem::NotPendingDeletion(key.id.clone()));
        }
        // As in the service: to be used again, it has to be enabled too.
        (key.state, key.deletion_at) = (KeyState::Disabled, None);
        Ok(())
    })
    .await?;
    Ok(CancelKeyDeletionOutput { key_id: Some(arn(&key)) })
}

async fn update_key_description(
    cx: Cx,
    input: UpdateKeyDescriptionInput,
) -> Result<UpdateKeyDescriptionOutput> {
    update(&cx, &input.key_id, move |key, _| {
        refuse_pending(key)?;
        key.description = input.description;
        Ok(())
    })
    .await?;
    Ok(UpdateKeyDescriptionOutput::default())
}

fn metadata(key: &Key) -> KeyMetadata {
    let state = match key.state {
        KeyState::Enabled => api::kms::KeyState::Enabled,
        KeyState::Disabled => api::kms::KeyState::Disabled,
        KeyState::PendingDeletion => api::kms::KeyState::PendingDeletion,
    };
    KeyMetadata {
        aws_account_id: Some(key.account.clone()),
        key_id: Some(key.id.clone()),
        arn: Some(arn(key)),
        creation_date: Some(Timestamp::from_millis(key.created_at)),
        enabled: Some(key.state == KeyState::Enabled),
        description: Some(key.description.clone()),
        key_usage: Some(KeyUsageType::ENCRYPTDECRYPT),
        key_state: Some(state),
        deletion_date: key.deletion_at.map(Timestamp::from_millis),
        origin: Some(OriginType::AWSKMS),
        key_manager: Some(if key.is_managed { KeyManagerType::AWS } else { KeyManagerType::CUSTOMER }),
        customer_master_key_spec: Some(CustomerMasterKeySpec::SYMMETRICDEFAULT),
        key_spec: Some(KeySpec::SYMMETRICDEFAULT),
        encryption_algorithms: Some(vec![EncryptionAlgorithmSpec::SYMMETRICDEFAULT]),
        multi_region: Some(false),
        ..Default::default()
    }
}
