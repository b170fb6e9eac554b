//! DescribeModelPackageHistory of our own service: who approved a package and why, and what it is made of.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::package::PackageRecord;
use crate::own_service::own_operation;
use crate::sagemaker::package_access;
use crate::{Cx, Registry, Result};

own_operation! {
    /// Answers how a model package came to its approval status, and its artifacts with their hashes.
    DescribeModelPackageHistory(DescribeModelPackageHistoryInput) -> DescribeModelPackageHistoryOutput
}

/// Input of [`DescribeModelPackageHistory`].
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeModelPackageHistoryInput {
    /// Name of the package, `GROUP/VERSION`, or its ARN.
    pub model_package_name: String,
}

/// Output of [`DescribeModelPackageHistory`].
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeModelPackageHistoryOutput {
    /// `Approvals`, oldest first, and `Artifacts`.
    pub history: Value,
}

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on::<DescribeModelPackageHistory, _, _, _>(describe_model_package_history);
}

async fn describe_model_package_history(
    cx: Cx,
    input: DescribeModelPackageHistoryInput,
) -> Result<DescribeModelPackageHistoryOutput> {
    let action = "sagemaker:DescribeModelPackage";
    let package = package_access::package(&cx, &input.model_package_name, action).await?;
    let record = PackageRecord::read(&package.document)?;
    let approvals = record.approvals.iter().map(|approval| {
        json!({
            "At": approval.at as f64 / 1000.0,
            "By": approval.by.arn,
            "From": approval.from,
            "To": approval.to,
            "Why": approval.why,
        })
    });
    let artifacts = record.artifacts.iter().map(|artifact| {
        json!({
            "Uri": artifact.uri,
            "SizeInBytes": artifact.size_bytes,
            "ETag": artifact.etag,
            "Sha256": artifact.sha256,
        })
    });
    let history = json!({
        "ModelPackageArn": package.arn,
        "CreatedBy": record.created_by.arn,
        "Approvals": approvals.collect::<Vec<_>>(),
        "Artifacts": artifacts.collect::<Vec<_>>(),
    });
    Ok(DescribeModelPackageHistoryOutput { history })
}
