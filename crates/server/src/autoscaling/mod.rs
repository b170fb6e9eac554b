//! Application Auto Scaling for endpoint variants: targets and policies are kept and described; acting on them follows
//! with the endpoint metrics.

mod policies;
mod targets;

use serde_json::Value;

use crate::sagemaker::kinds::ENDPOINT;
use crate::{Cx, Error, Registry, Result};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    targets::routes(registry);
    policies::routes(registry);
}

/// Dimension of an endpoint variant.
const VARIANT_DIMENSION: &str = "sagemaker:variant:DesiredInstanceCount";

/// What names a scalable target.
struct Target<'a> {
    resource_id: &'a str,
    dimension: &'a str,
}

impl Target<'_> {
    /// Name of its record.
    fn name(&self) -> String {
        format!("{}|{}", self.resource_id, self.dimension)
    }

    /// Refuses what is not a variant of an endpoint that exists.
    async fn check(&self, cx: &Cx, input: &Value) -> Result<()> {
        check_namespace(input)?;
        if self.dimension != VARIANT_DIMENSION {
            return Err(Error::field(&format!("ScalableDimension {}", self.dimension)));
        }
        let parts: Vec<&str> = self.resource_id.split('/').collect();
        let ["endpoint", endpoint, "variant", variant] = parts[..] else {
            return Err(Error::Validation(format!(
                "ResourceId {:?} must have the form endpoint/NAME/variant/NAME.",
                self.resource_id
            )));
        };
        let key = crate::sagemaker::record_key(cx, ENDPOINT, endpoint);
        let found = cx.state.database.read(move |session| session.find_resource(&key)).await?;
        let variants = found.as_ref().map(|resource| crate::endpoints::variant_names(&resource.document));
        if variants.is_some_and(|variants| variants.iter().any(|name| name == variant)) {
            Ok(())
        } else {
            Err(Error::Validation(format!(
                "No endpoint variant found for service namespace: sagemaker, resource ID: {}, scalable dimension: {}",
                self.resource_id, self.dimension
            )))
        }
    }
}

fn check_namespace(input: &Value) -> Result<()> {
    match input["ServiceNamespace"].as_str() {
        Some("sagemaker") => Ok(()),
        other => Err(Error::field(&format!("ServiceNamespace {}", other.unwrap_or_default()))),
    }
}

/// Pages of a list that is short by nature: tokens count rows.
fn paged<T>(rows: Vec<T>, max_results: Option<i32>, token: Option<&str>) -> Result<(Vec<T>, Option<String>)> {
    let start = match token {
        None => 0,
        Some(token) => token
            .parse::<usize>()
            .map_err(|_| Error::Validation("The pagination token NextToken is not valid.".into()))?,
    };
    let count = max_results.map_or(50, |rows| rows.clamp(1, 50) as usize);
    let next_token = (rows.len() > start + count).then(|| (start + count).to_string());
    Ok((rows.into_iter().skip(start).take(count).collect(), next_token))
}
