//! What is done with keys: encrypt, decrypt, data keys.

use std::collections::BTreeMap;

use api::Blob;
use api::kms::{
    DataKeySpec, Decrypt, DecryptInput, DecryptOutput, Encrypt, EncryptInput, EncryptOutput,
    EncryptionAlgorithmSpec, GenerateDataKey, GenerateDataKeyInput, GenerateDataKeyOutput,
    GenerateDataKeyWithoutPlaintext, GenerateDataKeyWithoutPlaintextInput,
    GenerateDataKeyWithoutPlaintextOutput, GenerateRandom, GenerateRandomInput, GenerateRandomOutput,
    ReEncrypt, ReEncryptInput, ReEncryptOutput,
};
use store::keys::{Key, KeyProblem};

use super::error::{Problem, Result};
use super::keys::refuse_grants;
use super::{arn, find};
use crate::{Cx, Error, Registry};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<Encrypt, _, _, _>(encrypt);
    registry.on::<Decrypt, _, _, _>(decrypt);
    registry.on::<ReEncrypt, _, _, _>(re_encrypt);
    registry.on::<GenerateDataKey, _, _, _>(generate_data_key);
    registry.on::<GenerateDataKeyWithoutPlaintext, _, _, _>(generate_data_key_without_plaintext);
    registry.on::<GenerateRandom, _, _, _>(generate_random);
}

type Context = BTreeMap<String, String>;

async fn encrypt(cx: Cx, input: EncryptInput) -> Result<EncryptOutput> {
    refuse_grants(input.grant_tokens.as_ref())?;
    check_algorithm(input.encryption_algorithm.as_ref())?;
    let context = input.encryption_context.unwrap_or_default();
    let key = find(&cx, &input.key_id).await?;
    let blob = seal(&cx, &key, &context, &input.plaintext.0).await?;
    refuse_dry_run(input.dry_run)?;
    Ok(EncryptOutput {
        ciphertext_blob: Some(Blob(blob)),
        key_id: Some(arn(&key)),
        encryption_algorithm: Some(EncryptionAlgorithmSpec::SYMMETRICDEFAULT),
    })
}

async fn decrypt(cx: Cx, input: DecryptInput) -> Result<DecryptOutput> {
    refuse_grants(input.grant_tokens.as_ref())?;
    refuse_recipient(input.recipient.is_some())?;
    refuse_modifiers(input.dry_run_modifiers.is_some())?;
    check_algorithm(input.encryption_algorithm.as_ref())?;
    let context = input.encryption_context.unwrap_or_default();
    let (key, plain) = open(&cx, input.ciphertext_blob, &context, input.key_id.as_deref()).await?;
    refuse_dry_run(input.dry_run)?;
    Ok(DecryptOutput {
        key_id: Some(arn(&key)),
        plaintext: Some(Blob(plain)),
        encryption_algorithm: Some(EncryptionAlgorithmSpec::SYMMETRICDEFAULT),
        ..Default::default()
    })
}

async fn re_encrypt(cx: Cx, input: ReEncryptInput) -> Result<ReEncryptOutput> {
    refuse_grants(input.grant_tokens.as_ref())?;
    refuse_modifiers(input.dry_run_modifiers.is_some())?;
    check_algorithm(input.source_encryption_algorithm.as_ref())?;
    check_algorithm(input.destination_encryption_algorithm.as_ref())?;
    let source = input.source_encryption_context.unwrap_or_default();
    let (from, plain) = open(&cx, input.ciphertext_blob, &source, input.source_key_id.as_deref()).await?;
    let to = find(&cx, &input.destination_key_id).await?;
    let context = input.destination_encryption_context.unwrap_or_default();
    let blob = seal(&cx, &to, &context, &plain).await?;
    refuse_dry_run(input.dry_run)?;
    Ok(ReEncryptOutput {
        ciphertext_blob: Some(Blob(blob)),
        source_key_id: Some(arn(&from)),
        key_id: Some(arn(&to)),
        source_encryption_algorithm: Some(EncryptionAlgorithmSpec::SYMMETRICDEFAULT),
        destination_encryption_algorithm: Some(EncryptionAlgorithmSpec::SYMMETRICDEFAULT),
        ..Default::default()
    })
}

async fn generate_data_key(cx: Cx, input: GenerateDataKeyInput) -> Result<GenerateDataKeyOutput> {
    refuse_grants(input.grant_tokens.as_ref())?;
    refuse_recipient(input.recipient.is_some())?;
    let plain = data_key(input.number_of_bytes, input.key_spec.as_ref())?;
    let key = find(&cx, &input.key_id).await?;
    let context = input.encryption_context.unwrap_or_default();
    let blob = seal(&cx, &key, &context, &plain).await?;
    refuse_dry_run(input.dry_run)?;
    Ok(GenerateDataKeyOutput {
        ciphertext_blob: Some(Blob(blob)),
        plaintext: Some(Blob(plain)),
        key_id: Some(arn(&key)),
        ..Default::default()
    })
}

async fn generate_data_key_without_plaintext(
    cx: Cx,
    input: GenerateDataKeyWithoutPlaintextInput,
) -> Result<GenerateDataKeyWithoutPlaintextOutput> {
    refuse_grants(input.grant_tokens.as_ref())?;
    let plain = data_key(input.number_of_bytes, input.key_spec.as_ref())?;
    let key = find(&cx, &input.key_id).await?;
    let context = input.encryption_context.unwrap_or_default();
    let blob = seal(&cx, &key, &context, &plain).await?;
    refuse_dry_run(input.dry_run)?;
    Ok(GenerateDataKeyWithoutPlaintextOutput {
        ciphertext_blob: Some(Blob(blob)),
        key_id: Some(arn(&key)),
        ..Default::default()
    })
}

async fn generate_random(_cx: Cx, input: GenerateRandomInput) -> Result<GenerateRandomOutput> {
    refuse_recipient(input.recipient.is_some())?;
    if input.custom_key_store_id.is_some() {
        return Err(Error::field("CustomKeyStoreId").into());
    }
    let Some(count) = input.number_of_bytes else {
        return Err(Error::Validation("NumberOfBytes must be given.".into()).into());
    };
    Ok(GenerateRandomOutput { plaintext: Some(Blob(random(count))), ..Default::default() })
}

fn random(count: i32) -> Vec<u8> {
    let mut bytes = vec![0; count.unsigned_abs() as usize];
    store::seal::fill_random(&mut bytes);
    bytes
}

fn data_key(count: Option<i32>, spec: Option<&DataKeySpec>) -> Result<Vec<u8>> {
    match (count, spec.map(DataKeySpec::as_str)) {
        (Some(count), None) => Ok(random(count)),
        (None, Some("AES_128")) => Ok(random(16)),
        (None, Some(_)) => Ok(random(32)),
        _ => Err(Error::Validation("Please specify either number of bytes or key spec.".into()).into()),
    }
}

async fn seal(cx: &Cx, key: &Key, context: &Context, plain: &[u8]) -> Result<Vec<u8>> {
    cx.state.keys.encrypt(key, context, plain).await.map_err(|error| Problem::of_key(cx, error))
}

/// The bytes behind a blob; a key that the caller names must be the one that encrypted them.
async fn open(
    cx: &Cx,
    blob: Option<Blob>,
    context: &Context,
    expected: Option<&str>,
) -> Result<(Key, Vec<u8>)> {
    let Some(blob) = blob else {
        return Err(Error::Validation("CiphertextBlob must be given.".into()).into());
    };
    let expected = match expected {
        None => None,
        Some(name) => Some(find(cx, name).await?),
    };
    let (account, region) = (&cx.caller.account, Some(cx.caller.region.as_str()));
    let opened = cx.state.keys.decrypt(account, region, context, &blob.0).await;
    let (key, plain) = opened.map_err(|error| Problem::of_key(cx, error))?;
    match expected {
        Some(expected) if expected.id != key.id => {
            Err(Problem::of_key(cx, KeyProblem::Incorrect(expected.id).into()))
        }
        _ => Ok((key, plain)),
    }
}

fn check_algorithm(algorithm: Option<&EncryptionAlgorithmSpec>) -> Result<()> {
    match algorithm.map(EncryptionAlgorithmSpec::as_str) {
        None | Some("SYMMETRIC_DEFAULT") => Ok(()),
        Some(other) => Err(Problem::Code(
            "InvalidKeyUsageException",
            format!("Algorithm {other} is incompatible with key spec SYMMETRIC_DEFAULT."),
        )),
    }
}

/// A dry run says by its error that the request would have been answered.
fn refuse_dry_run(dry_run: Option<bool>) -> Result<()> {
    match dry_run {
        Some(true) => Err(Problem::Code(
            "DryRunOperationException",
            "The request would have succeeded, but the DryRun option is set.".into(),
        )),
        _ => Ok(()),
    }
}

fn refuse_recipient(given: bool) -> Result<()> {
    if given { Err(Error::field("Recipient").into()) } else { Ok(()) }
}

fn refuse_modifiers(given: bool) -> Result<()> {
    if given { Err(Error::field("DryRunModifiers").into()) } else { Ok(()) }
}
