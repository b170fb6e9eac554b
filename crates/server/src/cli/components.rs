//! The inference components of an endpoint, as `modelyard endpoints show` has them.

use serde_json::{Value, json};

use super::client::Client;
use super::jobs::text;
use super::output;

/// Adds the components to the description of their endpoint, where it has some.
///
/// # Errors
/// The server's error, or why it was not reached.
pub async fn add(client: &Client, endpoint: &mut Value) -> Result<(), String> {
    let asked = json!({
        "EndpointNameEquals": endpoint["EndpointName"], "SortBy": "Name", "SortOrder": "Ascending", "MaxResults": 100,
    });
    let found = client.list("SageMaker.ListInferenceComponents", asked, "InferenceComponents").await?;
    let mut components = Vec::new();
    for one in found {
        let asked = json!({"InferenceComponentName": one["InferenceComponentName"]});
        // One that has gone meanwhile is not shown.
        components.extend(client.call("SageMaker.DescribeInferenceComponent", &asked).await.ok());
    }
    if !components.is_empty() {
        endpoint["InferenceComponents"] = components.into();
    }
    Ok(())
}

/// The components of an endpoint as rows of what scales: their copies are what instances are to a variant.
pub fn as_variants(endpoint: &Value) -> Vec<Value> {
    let variant = |component: &Value| {
        let copies = &component["RuntimeConfig"];
        json!({
            "VariantName": component["InferenceComponentName"],
            "CurrentInstanceCount": copies["CurrentCopyCount"],
            "DesiredInstanceCount": copies["DesiredCopyCount"],
        })
    };
    endpoint["InferenceComponents"].as_array().into_iter().flatten().map(variant).collect()
}

/// Prints the components, if there are some.
pub fn show(components: &Value) {
    let none = Vec::new();
    let components = components.as_array().unwrap_or(&none);
    if components.is_empty() {
        return;
    }
    output::line("");
    let rows: Vec<Vec<String>> = components.iter().map(row).collect();
    output::table(&["COMPONENT", "VARIANT", "STATUS", "COPIES", "EACH TAKES"], &rows);
    for component in components {
        let reason = text(&component["FailureReason"]);
        if !reason.is_empty() {
            output::line(&format!("{}: {reason}", text(&component["InferenceComponentName"])));
        }
    }
}

fn row(component: &Value) -> Vec<String> {
    let copies = &component["RuntimeConfig"];
    vec![
        text(&component["InferenceComponentName"]),
        text(&component["VariantName"]),
        text(&component["InferenceComponentStatus"]),
        format!("{} of {}", copies["CurrentCopyCount"], copies["DesiredCopyCount"]),
        share(&component["Specification"]["ComputeResourceRequirements"]),
    ]
}

fn share(wanted: &Value) -> String {
    let number = |name: &str, words: &str| wanted[name].as_f64().map(|number| format!("{number} {words}"));
    let parts = [
        number("NumberOfCpuCoresRequired", "CPU cores"),
        number("NumberOfAcceleratorDevicesRequired", "accelerators"),
        number("MinMemoryRequiredInMb", "MB"),
        number("MaxMemoryRequiredInMb", "MB at most"),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_copies_and_share() {
        let component = json!({
            "InferenceComponentName": "c", "VariantName": "v", "InferenceComponentStatus": "InService",
            "RuntimeConfig": {"DesiredCopyCount": 2, "CurrentCopyCount": 1},
            "Specification": {"ComputeResourceRequirements": {"NumberOfCpuCoresRequired": 0.5, "MinMemoryRequiredInMb": 512}},
        });
        assert_eq!(row(&component), ["c", "v", "InService", "1 of 2", "0.5 CPU cores, 512 MB"]);
    }
}
