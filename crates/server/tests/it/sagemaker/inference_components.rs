//! Inference components: what is refused, what is kept, and who has room. What they do when they serve is in the client tests.

use http::Method;
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::open_protocols::{CLOSED, ask_from, bearer};

const ROLE: &str = "arn:aws:iam::123456789012:role/ModelyardExecutionRole";
const IMAGE: &str = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1";
const SCALING: &str = "AnyScaleFrontendService";

fn with(base: &Value, more: &Value) -> Value {
    let mut changed = base.clone();
    changed.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    changed
}

fn variant(more: &Value) -> Value {
    let base = json!({"VariantName": "v", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1});
    with(&base, more)
}

fn config(name: &str, variant: &Value) -> Value {
    json!({"EndpointConfigName": name, "ExecutionRoleArn": ROLE, "ProductionVariants": [variant]})
}

/// Two cores and 8 GiB: an instance of type ml.m5.large.
fn component(name: &str, cores: f64, copies: u32) -> Value {
    json!({
        "InferenceComponentName": name, "EndpointName": "e", "VariantName": "v",
        "Specification": {
            "ModelName": "m",
            "ComputeResourceRequirements": {"NumberOfCpuCoresRequired": cores, "MinMemoryRequiredInMb": 1024},
        },
        "RuntimeConfig": {"CopyCount": copies},
    })
}

impl TestApp {
    async fn component(&self, name: &str) -> Value {
        self.ok("SageMaker.DescribeInferenceComponent", json!({"InferenceComponentName": name})).await
    }

    async fn component_is(&self, name: &str, status: &str) -> Value {
        self.until(&format!("{name} is {status}"), || async {
            let found = self.component(name).await;
            (found["InferenceComponentStatus"] == status).then_some(found)
        })
        .await
    }

    async fn endpoint_is_in_service(&self) -> Value {
        self.until("the endpoint is in service", || async {
            let found = self.ok("SageMaker.DescribeEndpoint", json!({"EndpointName": "e"})).await;
            (found["EndpointStatus"] == "InService").then_some(found)
        })
        .await
    }

    async fn deleted(&self, name: &str) {
        self.ok("SageMaker.DeleteInferenceComponent", json!({"InferenceComponentName": name})).await;
        self.until(&format!("{name} is gone"), || async {
            let asked = json!({"InferenceComponentName": name});
            let answer = self.call("SageMaker.DescribeInferenceComponent", asked).await;
            answer.status.is_client_error().then_some(())
        })
        .await;
    }
}

async fn model(app: &TestApp, name: &str, more: &Value) {
    let base = json!({"ModelName": name, "ExecutionRoleArn": ROLE, "PrimaryContainer": {"Image": IMAGE}});
    app.ok("SageMaker.CreateModel", with(&base, more)).await;
}

/// An endpoint `e` in service whose variant `v` is for components, and a model `m`.
async fn scene(managed: &Value) -> TestApp {
    let app = TestApp::new().await;
    let data = json!({"PrimaryContainer": {"Image": IMAGE, "ModelDataUrl": "s3://nothing/is-here.tar.gz"}});
    model(&app, "m", &data).await;
    app.ok("SageMaker.CreateEndpointConfig", config("c", &variant(managed))).await;
    app.ok("SageMaker.CreateEndpoint", json!({"EndpointName": "e", "EndpointConfigName": "c"})).await;
    app.endpoint_is_in_service().await;
    app
}

#[tokio::test]
async fn configurations_for_components_say_what_they_need() {
    let app = TestApp::new().await;
    model(&app, "m", &json!({})).await;
    let managed = json!({"Status": "ENABLED", "MinInstanceCount": 0, "MaxInstanceCount": 2});
    let whole = json!({
        "ManagedInstanceScaling": managed, "InferenceAmiVersion": "al2-ami-sagemaker-inference-gpu-2",
        "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
    });
    app.ok("SageMaker.CreateEndpointConfig", config("whole", &variant(&whole))).await;
    let described = app.ok("SageMaker.DescribeEndpointConfig", json!({"EndpointConfigName": "whole"})).await;
    let shown = &described["ProductionVariants"][0];
    assert_eq!(shown["ManagedInstanceScaling"], managed);
    assert_eq!(shown["InferenceAmiVersion"], "al2-ami-sagemaker-inference-gpu-2");
    assert_eq!(described["ExecutionRoleArn"], ROLE);
    let capture = json!({
        "EnableCapture": true, "InitialSamplingPercentage": 100, "DestinationS3Uri": "s3://b/c",
        "CaptureOptions": [{"CaptureMode": "Input"}],
    });
    let serverless = json!({"MemorySizeInMB": 1024, "MaxConcurrency": 1});
    for (more, on_variant, says) in [
        (json!({"ExecutionRoleArn": null}), json!({}), "ExecutionRoleArn must be given"),
        (
            json!({"ExecutionRoleArn": "arn:aws:iam::123456789012:role/Nobody"}),
            json!({}),
            "Could not assume role",
        ),
        (json!({}), json!({"InstanceType": null}), "InstanceType must be given"),
        (json!({}), json!({"InitialVariantWeight": 1.0}), "InitialVariantWeight is not supported"),
        (json!({}), json!({"ServerlessConfig": serverless}), "ServerlessConfig is not supported"),
        (json!({"DataCaptureConfig": capture}), json!({}), "DataCaptureConfig is not supported"),
        (
            json!({"AsyncInferenceConfig": {"OutputConfig": {}}}),
            json!({}),
            "AsyncInferenceConfig is not supported",
        ),
        (
            json!({}),
            json!({"ManagedInstanceScaling": {"Status": "ENABLED", "MinInstanceCount": 2}}),
            "InitialInstanceCount 1",
        ),
        (json!({}), json!({"ModelName": "m"}), "ExecutionRoleArn with ModelName"),
        (
            json!({"ExecutionRoleArn": null}),
            json!({"ModelName": "m", "ManagedInstanceScaling": managed}),
            "ManagedInstanceScaling",
        ),
    ] {
        let asked = with(&config("no", &variant(&on_variant)), &more);
        let (code, message) = app.refused("SageMaker.CreateEndpointConfig", asked).await;
        assert!(code == "ValidationException" && message.contains(says), "{says}: {message}");
    }
    let mut mixed = config("no", &variant(&json!({})));
    let other = json!({"VariantName": "w", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1});
    mixed["ProductionVariants"].as_array_mut().unwrap().push(other);
    let (_, message) = app.refused("SageMaker.CreateEndpointConfig", mixed).await;
    assert!(message.contains("either all variants have a ModelName, or none"), "{message}");
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_by_name() {
    let app = scene(&json!({})).await;
    model(
        &app,
        "several",
        &json!({"PrimaryContainer": null, "Containers": [{"Image": IMAGE}, {"Image": IMAGE}]}),
    )
    .await;
    let specification =
        |more: Value| json!({"Specification": with(&component("x", 1.0, 1)["Specification"], &more)});
    let requirements = |more: Value| {
        let base = json!({"MinMemoryRequiredInMb": 1024});
        specification(json!({"ComputeResourceRequirements": with(&base, &more)}))
    };
    for (more, says) in [
        (json!({"EndpointName": "none"}), "Could not find endpoint"),
        (json!({"VariantName": "w"}), "no variant \"w\""),
        (json!({"VariantName": null}), "VariantName must be given"),
        (json!({"RuntimeConfig": null}), "CopyCount must be given"),
        (json!({"Specification": null}), "Specification must be given"),
        (specification(json!({"ModelName": "none"})), "Could not find model"),
        (specification(json!({"ModelName": "several"})), "several containers"),
        (specification(json!({"ModelName": null})), "either ModelName, or Container"),
        (specification(json!({"Container": {"Image": IMAGE}})), "either ModelName, or Container"),
        (
            specification(json!({"ModelName": null, "Container": {"ArtifactUrl": "s3://b/k"}})),
            "Image must be given",
        ),
        (
            specification(
                json!({"ModelName": null, "Container": {"Image": IMAGE, "ArtifactUrl": "s3://b/"}}),
            ),
            "ArtifactUrl",
        ),
        (specification(json!({"BaseInferenceComponentName": "base"})), "BaseInferenceComponentName"),
        (specification(json!({"ComputeResourceRequirements": null})), "MinMemoryRequiredInMb must be given"),
        (requirements(json!({"MaxMemoryRequiredInMb": 512})), "MaxMemoryRequiredInMb 512"),
        (requirements(json!({"NumberOfCpuCoresRequired": 0.1})), "umberOfCpuCoresRequired"),
        (requirements(json!({"AcceleratorPartitionType": "mig-1g.5gb"})), "AcceleratorPartitionType"),
    ] {
        let asked = with(&component("x", 1.0, 1), &more);
        let (code, message) = app.refused("SageMaker.CreateInferenceComponent", asked).await;
        assert!(code == "ValidationException" && message.contains(says), "{says}: {message}");
    }
    for operation in ["DescribeInferenceComponent", "DeleteInferenceComponent"] {
        let asked = json!({"InferenceComponentName": "none"});
        let (code, message) = app.refused(&format!("SageMaker.{operation}"), asked).await;
        assert_eq!(code, "ValidationException");
        assert!(message.starts_with("Could not find inference component"), "{message}");
    }
    app.ok("SageMaker.CreateInferenceComponent", component("x", 1.0, 0)).await;
    let (code, message) = app.refused("SageMaker.CreateInferenceComponent", component("x", 1.0, 0)).await;
    assert!(
        code == "ValidationException" && message.contains("already existing inference component"),
        "{message}"
    );
    app.component_is("x", "InService").await;
    let rolling = json!({"RollingUpdatePolicy": {
        "MaximumBatchSize": {"Type": "COPY_COUNT", "Value": 1}, "WaitIntervalInSeconds": 0,
    }});
    for (more, says) in [
        (json!({}), "Give Specification, RuntimeConfig, or both"),
        (json!({"RuntimeConfig": {"CopyCount": 1}, "DeploymentConfig": rolling}), "without a Specification"),
        (
            with(
                &specification(json!({})),
                &json!({"DeploymentConfig": with(&rolling, &json!({
                    "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "none"}]},
                }))}),
            ),
            "the alarm none does not exist",
        ),
    ] {
        let asked = with(&json!({"InferenceComponentName": "x"}), &more);
        let (code, message) = app.refused("SageMaker.UpdateInferenceComponent", asked).await;
        assert!(code == "ValidationException" && message.contains(says), "{says}: {message}");
    }
    let (code, message) = app.refused("SageMaker.DeleteEndpoint", json!({"EndpointName": "e"})).await;
    assert_eq!(code, "ValidationException");
    assert!(message.starts_with("Cannot delete endpoint with inference component associated."), "{message}");
    app.deleted("x").await;
    app.ok("SageMaker.DeleteEndpoint", json!({"EndpointName": "e"})).await;
}

#[tokio::test]
async fn a_component_without_copies_is_kept_described_listed_and_tagged() {
    let app = scene(&json!({})).await;
    let tagged = json!({"Tags": [{"Key": "team", "Value": "a"}]});
    let made = app.ok("SageMaker.CreateInferenceComponent", with(&component("One", 0.5, 0), &tagged)).await;
    let arn = "arn:aws:sagemaker:us-east-1:123456789012:inference-component/one";
    assert_eq!(made["InferenceComponentArn"], arn);
    let described = app.component_is("One", "InService").await;
    assert_eq!(described["EndpointArn"], "arn:aws:sagemaker:us-east-1:123456789012:endpoint/e");
    assert_eq!(
        (&described["VariantName"], &described["Specification"]["ModelName"]),
        (&json!("v"), &json!("m"))
    );
    assert_eq!(described["RuntimeConfig"], json!({"DesiredCopyCount": 0, "CurrentCopyCount": 0}));
    let container = json!({"Specification": {
        "Container": {"Image": IMAGE, "Environment": {"A": "b"}},
        "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 128},
        "StartupParameters": {"ContainerStartupHealthCheckTimeoutInSeconds": 60},
        "DataCacheConfig": {"EnableCaching": true}, "SchedulingConfig": {"PlacementStrategy": "BINPACK"},
    }});
    app.ok("SageMaker.CreateInferenceComponent", with(&component("two", 0.5, 0), &container)).await;
    let described = app.component_is("two", "InService").await["Specification"].clone();
    assert_eq!(described["Container"]["DeployedImage"]["SpecifiedImage"], IMAGE);
    assert_eq!(described["SchedulingConfig"], json!({"PlacementStrategy": "BINPACK"}));
    let tags = app.ok("SageMaker.ListTags", json!({"ResourceArn": arn})).await;
    assert_eq!(tags["Tags"], json!([{"Key": "team", "Value": "a"}]));
    let names = async |filter: Value| {
        let sorted = json!({"SortBy": "Name", "SortOrder": "Ascending"});
        let found = app.ok("SageMaker.ListInferenceComponents", with(&sorted, &filter)).await;
        let found = found["InferenceComponents"].as_array().unwrap().clone();
        found.iter().map(|one| one["InferenceComponentName"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(json!({"EndpointNameEquals": "e", "VariantNameEquals": "v"})).await, ["One", "two"]);
    assert_eq!(names(json!({"NameContains": "wo", "StatusEquals": "InService"})).await, ["two"]);
    assert!(names(json!({"EndpointNameEquals": "other"})).await.is_empty());
    assert!(names(json!({"VariantNameEquals": "other"})).await.is_empty());
}

#[tokio::test]
async fn copies_that_have_no_room_fail_and_say_what_is_free() {
    let app = scene(&json!({})).await;
    app.ok("SageMaker.CreateInferenceComponent", component("wide", 1.5, 2)).await;
    let failed = app.component("wide").await;
    assert_eq!(failed["InferenceComponentStatus"], "Failed");
    let reason = failed["FailureReason"].as_str().unwrap();
    for says in [
        "CapacityError: 1 of 2 copies have room on variant v",
        "1.5 CPU cores, 1024 MB of memory",
        "1 x ml.m5.large",
        "An empty instance holds 1 copies",
    ] {
        assert!(reason.contains(says), "{reason}");
    }
    // What does not run takes no room, and can be tried again with less.
    let less = json!({"InferenceComponentName": "wide", "RuntimeConfig": {"CopyCount": 0}});
    app.ok("SageMaker.UpdateInferenceComponent", less).await;
    let described = app.component_is("wide", "InService").await;
    assert_eq!(described["FailureReason"], Value::Null);
    // Beyond the room: it is wanted, and waits for room.
    let more = json!({"InferenceComponentName": "wide", "DesiredRuntimeConfig": {"CopyCount": 3}});
    let accelerated = json!({"Specification": {
        "ModelName": "m",
        "ComputeResourceRequirements": {"NumberOfAcceleratorDevicesRequired": 1, "MinMemoryRequiredInMb": 128},
    }});
    app.ok("SageMaker.CreateInferenceComponent", with(&component("gpu", 1.0, 1), &accelerated)).await;
    let reason = app.component_is("gpu", "Failed").await["FailureReason"].clone();
    assert!(reason.as_str().unwrap().contains("0 of 1 copies"), "{reason}");
    // The archive is nowhere, so that the first copy that starts fails; what is wanted stays to be seen.
    app.ok("SageMaker.UpdateInferenceComponentRuntimeConfig", more).await;
    assert_eq!(app.component("wide").await["RuntimeConfig"]["DesiredCopyCount"], 3);
}

#[tokio::test]
async fn a_copy_that_does_not_start_fails_the_component_and_gives_its_room_back() {
    let app = scene(&json!({})).await;
    app.ok("SageMaker.CreateInferenceComponent", component("broken", 2.0, 1)).await;
    let failed = app.component_is("broken", "Failed").await;
    assert!(failed["FailureReason"].as_str().unwrap().contains("nothing"), "{failed}");
    app.ok("SageMaker.CreateInferenceComponent", component("other", 2.0, 1)).await;
    let other = app.component_is("other", "Failed").await;
    assert!(!other["FailureReason"].as_str().unwrap().contains("CapacityError"), "{other}");
}

#[tokio::test]
async fn managed_instances_follow_the_components() {
    let managed = json!({"Status": "ENABLED", "MinInstanceCount": 0, "MaxInstanceCount": 3});
    let app = scene(&json!({"ManagedInstanceScaling": managed})).await;
    let instances = async || {
        let endpoint = app.ok("SageMaker.DescribeEndpoint", json!({"EndpointName": "e"})).await;
        let variant = endpoint["ProductionVariants"][0].clone();
        assert_eq!(variant["ManagedInstanceScaling"], managed);
        assert_eq!(variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]);
        variant["DesiredInstanceCount"].as_u64().unwrap()
    };
    assert_eq!(instances().await, 1, "as the configuration says, until there is a component");
    app.ok("SageMaker.CreateInferenceComponent", component("none", 2.0, 0)).await;
    app.component_is("none", "InService").await;
    assert_eq!(instances().await, 0);
    app.ok("SageMaker.CreateInferenceComponent", component("too-much", 2.0, 4)).await;
    let reason = app.component_is("too-much", "Failed").await["FailureReason"].clone();
    assert!(reason.as_str().unwrap().contains("3 of 4 copies have room"), "{reason}");
    assert!(reason.as_str().unwrap().contains("MaxInstanceCount 3"), "{reason}");
    assert_eq!(instances().await, 0);
    let by_hand = json!({"EndpointName": "e", "DesiredWeightsAndCapacities": [{"VariantName": "v", "DesiredInstanceCount": 2}]});
    let (_, message) = app.refused("SageMaker.UpdateEndpointWeightsAndCapacities", by_hand).await;
    assert!(message.contains("ManagedInstanceScaling"), "{message}");
}

#[tokio::test]
async fn an_endpoint_for_components_stays_one() {
    let app = scene(&json!({})).await;
    app.ok("SageMaker.CreateInferenceComponent", component("x", 1.0, 0)).await;
    app.component_is("x", "InService").await;
    let models = json!({"EndpointConfigName": "models", "ProductionVariants": [
        {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1},
    ]});
    app.ok("SageMaker.CreateEndpointConfig", models).await;
    app.ok("SageMaker.CreateEndpointConfig", config("w", &variant(&json!({"VariantName": "w"})))).await;
    let larger = variant(&json!({"InstanceType": "ml.m5.xlarge", "InitialInstanceCount": 2}));
    app.ok("SageMaker.CreateEndpointConfig", config("larger", &larger)).await;
    let update = |config: &str| json!({"EndpointName": "e", "EndpointConfigName": config});
    for (config, says) in
        [("models", "for inference components"), ("w", "The variant v has inference components")]
    {
        let (_, message) = app.refused("SageMaker.UpdateEndpoint", update(config)).await;
        assert!(message.contains(says), "{message}");
    }
    app.ok("SageMaker.UpdateEndpoint", update("larger")).await;
    let described = app.endpoint_is_in_service().await;
    assert_eq!(described["EndpointConfigName"], "larger");
    assert_eq!(described["ProductionVariants"][0]["DesiredInstanceCount"], 2);
    assert_eq!(described["ProductionVariants"][0]["DesiredWeight"], Value::Null);
    let counts = json!({"EndpointName": "e", "DesiredWeightsAndCapacities": [{"VariantName": "v", "DesiredInstanceCount": 3}]});
    app.ok("SageMaker.UpdateEndpointWeightsAndCapacities", counts).await;
    let described = app.endpoint_is_in_service().await;
    assert_eq!(described["ProductionVariants"][0]["CurrentInstanceCount"], 3);
    let weights = json!({"EndpointName": "e", "DesiredWeightsAndCapacities": [{"VariantName": "v", "DesiredWeight": 2.0}]});
    let (_, message) = app.refused("SageMaker.UpdateEndpointWeightsAndCapacities", weights).await;
    assert!(message.contains("has no DesiredWeight"), "{message}");
}

#[tokio::test]
async fn policies_scale_copies_by_metrics_of_copies() {
    let app = scene(&json!({})).await;
    let target = |id: &str, dimension: &str| json!({"ServiceNamespace": "sagemaker", "ResourceId": id, "ScalableDimension": dimension});
    let bounds = json!({"MinCapacity": 0, "MaxCapacity": 2});
    let copies = target("inference-component/x", "sagemaker:inference-component:DesiredCopyCount");
    let register = format!("{SCALING}.RegisterScalableTarget");
    let (_, message) = app.refused(&register, with(&copies, &bounds)).await;
    assert!(message.starts_with("No inference component found"), "{message}");
    app.ok("SageMaker.CreateInferenceComponent", component("x", 1.0, 0)).await;
    app.component_is("x", "InService").await;
    let instances = target("endpoint/e/variant/v", "sagemaker:variant:DesiredInstanceCount");
    let (_, message) = app.refused(&register, with(&instances, &bounds)).await;
    assert!(message.contains("sagemaker:inference-component:DesiredCopyCount"), "{message}");
    app.ok(&register, with(&copies, &bounds)).await;
    let policy = |metric: &str| {
        json!({"PolicyName": metric, "PolicyType": "TargetTrackingScaling", "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": 5.0, "PredefinedMetricSpecification": {"PredefinedMetricType": metric},
        }})
    };
    let put = format!("{SCALING}.PutScalingPolicy");
    for metric in [
        "SageMakerInferenceComponentInvocationsPerCopy",
        "SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution",
    ] {
        app.ok(&put, with(&copies, &policy(metric))).await;
    }
    let wrong = with(&copies, &policy("SageMakerVariantInvocationsPerInstance"));
    let (_, message) = app.refused(&put, wrong).await;
    assert!(message.contains("use SageMakerInferenceComponentInvocationsPerCopy"), "{message}");
}

#[tokio::test]
async fn open_protocols_find_components_by_header_and_by_name() {
    let app = scene(&json!({})).await;
    let key = bearer(&app.key());
    let ask = async |method: Method, path: &str, component: Option<&str>, body: &[u8]| {
        let mut headers = vec![("authorization", key.as_str())];
        headers.extend(component.map(|name| ("X-Amzn-SageMaker-Inference-Component", name)));
        let answer = ask_from(&app, CLOSED, "192.0.2.1:5000", method, path, &headers, body).await;
        (answer.status.as_u16(), answer.json())
    };
    let get = async |path: &str, component: Option<&str>| ask(Method::GET, path, component, b"").await;
    let predict = async |path: &str, component: Option<&str>| {
        let (status, answer) = ask(Method::POST, path, component, b"{\"instances\": [1]}").await;
        (status, answer["error"].as_str().unwrap_or_default().to_owned())
    };
    let refused = |(status, text): (u16, String), expected: u16, says: &str| {
        assert!(status == expected && text.contains(says), "{status} {text}");
    };
    refused(predict("/v1/models/e:predict", None).await, 503, "The endpoint e has no inference component");
    refused(predict("/v1/models/e:predict", Some("one")).await, 404, "Inference Component one of endpoint e");

    app.ok("SageMaker.CreateInferenceComponent", component("one", 0.5, 0)).await;
    app.component_is("one", "InService").await;
    // The only one is meant; it has no copy, and nobody brings one up.
    let no_capacity = "Inference Component has no capacity";
    for (path, name) in [
        ("/v1/models/e:predict", None),
        ("/v1/models/one:predict", None),
        ("/v1/models/one:predict", Some("one")),
        ("/endpoints/e/v1/models/e:predict", None),
        ("/endpoints/e/v1/models/one:predict", None),
        ("/v1/models/e/one:predict", None),
        ("/v1/models/e%2Fone:predict", Some("one")),
    ] {
        refused(predict(path, name).await, 503, no_capacity);
    }
    let infer = b"{\"inputs\": [{\"name\": \"x\", \"datatype\": \"FP32\", \"shape\": [1], \"data\": [1]}]}";
    assert_eq!(ask(Method::POST, "/v2/models/one/infer", None, infer).await.0, 503);
    let (status, answer) =
        ask(Method::POST, "/v1/chat/completions", None, b"{\"model\": \"one\", \"messages\": []}").await;
    assert!(status == 503 && answer["error"]["message"].as_str().unwrap().contains(no_capacity), "{answer}");

    let two = with(&component("two", 9.0, 1), &json!({}));
    app.ok("SageMaker.CreateInferenceComponent", two).await;
    app.component_is("two", "Failed").await;
    let several = "The endpoint e has several inference components: one, two.";
    for path in ["/v1/models/e:predict", "/endpoints/e/v1/models/e:predict"] {
        refused(predict(path, None).await, 400, several);
        refused(predict(path, Some("none")).await, 404, "Inference Component none of endpoint e");
    }
    refused(
        predict("/v1/models/one:predict", Some("two")).await,
        400,
        "one as its model, and two in the header",
    );
    refused(
        predict("/endpoints/e/v1/models/three:predict", Some("one")).await,
        404,
        "There is no model three here; the endpoint's model is called one.",
    );
    refused(
        predict("/v1/models/e/three:predict", Some("one")).await,
        404,
        "There is no model e/three here; the endpoint's model is called one.",
    );
    refused(predict("/v1/models/e/three:predict", None).await, 400, several);
    refused(predict("/v1/models/two:predict", None).await, 503, no_capacity);

    assert_eq!(get("/v2/models/one/ready", None).await, (503, json!({"name": "one", "ready": false})));
    assert_eq!(get("/v2/models/e/ready", Some("two")).await, (503, json!({"name": "e", "ready": false})));
    assert_eq!(get("/v2/models/one/versions/w/ready", None).await.0, 404);
    let described =
        json!({"name": "one", "versions": ["v"], "platform": "modelyard", "inputs": [], "outputs": []});
    assert_eq!(get("/v2/models/one", None).await, (200, described.clone()));
    assert_eq!(get("/v2/models/e/versions/v", Some("one")).await, (200, described));
    assert_eq!(get("/v2/models/one/versions/w", None).await.0, 404);
    for path in ["/v1/models/two", "/endpoints/e/v1/models/two"] {
        let (status, found) = get(path, None).await;
        assert_eq!(
            (status, &found["name"], &found["ready"]),
            (200, &json!("two"), &json!("False")),
            "{path}"
        );
    }
    // Components in service stand in the list in the place of their endpoint.
    assert_eq!(get("/v1/models", None).await.1["models"], json!(["one"]));
    assert_eq!(get("/endpoints/e/v1/models", None).await.1["models"], json!(["one"]));

    // A name that an endpoint has too means the endpoint; below the other's own address, the component.
    let models = json!({"EndpointConfigName": "models", "ProductionVariants": [
        {"VariantName": "w", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1},
    ]});
    app.ok("SageMaker.CreateEndpointConfig", models).await;
    app.ok("SageMaker.CreateEndpoint", json!({"EndpointName": "one", "EndpointConfigName": "models"})).await;
    assert_eq!(get("/v2/models/one/versions/w", None).await.0, 200);
    for path in ["/endpoints/e/v2/models/one/versions/v", "/v2/models/e/one/versions/v"] {
        assert_eq!(get(path, None).await.0, 200, "{path}");
    }
    refused(predict("/v1/models/one/one:predict", None).await, 404, "There is no model one/one here");
    refused(predict("/v1/models/one:predict", Some("one")).await, 400, "header is not allowed for endpoints");
}
