//! `ShadowProductionVariants`: what a configuration may say, and what an endpoint then deploys.

use serde_json::Value;

use super::kinds::MODEL;
use super::{endpoint_configs, records};
use crate::{Cx, Error, Result};

/// Checks what the model of the API does not say.
///
/// # Errors
/// [`Error::Validation`] naming the field.
pub async fn check(cx: &Cx, config: &Value) -> Result<()> {
    let none = Vec::new();
    let list = |name: &str| config[name].as_array().unwrap_or(&none);
    let (production, shadows) = (list("ProductionVariants"), list("ShadowProductionVariants"));
    if shadows.is_empty() {
        return Ok(());
    }
    let refused = |text: &str| Err(Error::Validation(format!("ShadowProductionVariants: {text}")));
    let ([production], [shadow]) = (&production[..], &shadows[..]) else {
        return refused(
            "a configuration with shadow variants has one variant in ProductionVariants and one in ShadowProductionVariants.",
        );
    };
    if production["VariantName"] == shadow["VariantName"] {
        return refused("the shadow variant needs another name than the production variant.");
    }
    if !config["AsyncInferenceConfig"].is_null() {
        return refused(
            "an asynchronous endpoint cannot have shadow variants; leave AsyncInferenceConfig out.",
        );
    }
    if [production, shadow].iter().any(|variant| !variant["ServerlessConfig"].is_null()) {
        return refused("a serverless variant cannot have or be a shadow; leave ServerlessConfig out.");
    }
    endpoint_configs::routing(shadow)?;
    for variant in [production, shadow] {
        let Some(model) = variant["ModelName"].as_str() else {
            return refused("production and shadow variants need a ModelName.");
        };
        let model = records::find(cx, MODEL, model).await?;
        if has_several_models(&model.spec) {
            return refused(
                "a model with several containers, or a multi-model one, cannot have or be a shadow.",
            );
        }
    }
    Ok(())
}

/// Whether a stored model is more than one, which shadows are not for.
pub fn has_several_models(model: &Value) -> bool {
    let containers = model["Containers"].as_array().map_or(&[][..], Vec::as_slice);
    let is_multi = |container: &Value| container["Mode"] == "MultiModel";
    containers.len() > 1 || containers.iter().any(is_multi) || is_multi(&model["PrimaryContainer"])
}
