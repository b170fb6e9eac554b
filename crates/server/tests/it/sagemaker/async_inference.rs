//! Asynchronous endpoints without an instance: what is accepted, kept, expired, ended and told. Answers are in the client tests.

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};
use server::endpoints::EndpointRecord;
use store::resources::{Resource, ResourceKey};

use crate::app::{Answer, TestApp};

const ACCOUNT: &str = "123456789012";
const TOPIC: &str = "arn:aws:sns:us-east-1:123456789012:failed";

/// An endpoint in service whose variant has no instance; asynchronous unless its settings are null.
async fn endpoint(app: &TestApp, name: &str, settings: Value) {
    let key = ResourceKey::new(ACCOUNT, "us-east-1", "endpoint", name);
    let document = json!({
        "config": name,
        "generation": 1,
        "variants": [{
            "name": "AllTraffic", "weight": 1.0, "replicas": 0, "startup_timeout_seconds": 60, "image": "img:1",
            "model_data": null, "environment": {}, "role_arn": null, "network_isolation": false,
        }],
        "failure_reason": null,
        "asynchronous": settings,
    });
    let record = EndpointRecord::read(&document).unwrap();
    let resource = Resource {
        arn: format!("arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/{name}"),
        key: key.clone(),
        status: "InService".into(),
        spec: json!({"EndpointName": name, "EndpointConfigName": name}),
        document,
        generation: 1,
        created_at: app.clock.now_ms(),
        modified_at: app.clock.now_ms(),
    };
    app.app.database.write(move |session| session.insert_resource(&resource)).await.unwrap();
    app.app.endpoints.apply(&key, &record).unwrap();
}

async fn bucket(app: &TestApp, name: &str) {
    app.app.objects.create_bucket(ACCOUNT, "us-east-1", name).await.unwrap();
}

async fn invoke(app: &TestApp, endpoint: &str, headers: &[(&str, &str)], body: &'static str) -> Answer {
    let mut request = Request::post(format!("/endpoints/{endpoint}/async-invocations"));
    for (name, value) in headers {
        request = request.header(format!("x-amzn-sagemaker-{name}"), *value);
    }
    app.send_signed(request.body(()).unwrap(), Bytes::from(body), "sagemaker", &app.key()).await
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers[format!("x-amzn-sagemaker-{name}")].to_str().unwrap()
}

fn refusal(answer: &Answer) -> (String, String) {
    assert_eq!(answer.status, 400, "{}", answer.text());
    let body = answer.json();
    let message = body["message"].as_str().or(body["Message"].as_str()).unwrap_or_default().to_owned();
    (answer.headers["x-amzn-errortype"].to_str().unwrap().to_owned(), message)
}

async fn queue(app: &TestApp, endpoint: &str) -> Value {
    app.ok("Modelyard.DescribeAsyncQueue", json!({"EndpointName": endpoint})).await["Queue"].take()
}

/// The object of a URI as JSON, once it is there.
async fn stored(app: &TestApp, uri: &str) -> Value {
    let (bucket, key) = uri.strip_prefix("s3://").unwrap().split_once('/').unwrap();
    app.until(&format!("{uri} is there"), || async {
        let mut file = app.app.objects.open_object(ACCOUNT, bucket, key).await.ok()?;
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
        Some(serde_json::from_slice(&bytes).unwrap())
    })
    .await
}

#[tokio::test]
async fn requests_wait_until_there_is_an_instance_and_known_ones_are_not_taken_twice() {
    let app = TestApp::new().await;
    bucket(&app, "results").await;
    endpoint(&app, "later", json!({"output_path": "s3://results/out", "failure_path": "s3://results/bad"}))
        .await;
    let asked = [("inputlocation", "s3://results/in.json"), ("inference-id", "mine")];
    let first = invoke(&app, "later", &asked, "").await;
    assert_eq!(first.status, 202, "{}", first.text());
    assert_eq!(first.json()["InferenceId"], "mine");
    assert!(header(&first, "outputlocation").starts_with("s3://results/out/"));
    assert!(header(&first, "failurelocation").starts_with("s3://results/bad/"));
    let again = invoke(&app, "later", &asked, "").await;
    assert_eq!(header(&again, "outputlocation"), header(&first, "outputlocation"));
    let other = [("inputlocation", "s3://results/other.json"), ("inference-id", "mine")];
    let other = invoke(&app, "later", &other, "").await;
    assert_ne!(
        header(&other, "outputlocation"),
        header(&first, "outputlocation"),
        "it asks for something else"
    );
    let placed = [("s3outputpathextension", "day/1"), ("filename", "one.json")];
    let inline = invoke(&app, "later", &placed, "[1]").await;
    assert_eq!(inline.status, 202, "{}", inline.text());
    assert_eq!(header(&inline, "outputlocation"), "s3://results/out/day/1/one.json");

    let shown = queue(&app, "later").await;
    assert_eq!((&shown["Waiting"], &shown["Running"]), (&json!(3), &json!(0)));
    assert_eq!(shown["Requests"][0]["InferenceId"], "mine");
    assert_eq!(shown["Requests"][2]["Position"], 3);
    assert_eq!(shown["Requests"][2]["OutputLocation"], "s3://results/out/day/1/one.json");
    let endpoint = app.ok("SageMaker.DescribeEndpoint", json!({"EndpointName": "later"})).await;
    assert_eq!(
        endpoint["AsyncInferenceConfig"]["OutputConfig"],
        json!({"S3OutputPath": "s3://results/out", "S3FailurePath": "s3://results/bad"})
    );
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_at_once() {
    let app = TestApp::new().await;
    bucket(&app, "results").await;
    endpoint(&app, "later", json!({"output_path": "s3://results/out"})).await;
    endpoint(&app, "now", Value::Null).await;
    endpoint(&app, "nowhere", json!({"output_path": "s3://missing/out"})).await;
    let input = [("inputlocation", "s3://results/in.json")];
    let refused = |endpoint: &'static str, headers: Vec<(&'static str, &'static str)>, body: &'static str| {
        let app = &app;
        async move {
            let (code, message) = refusal(&invoke(app, endpoint, &headers, body).await);
            assert_eq!(code, "ValidationError", "{message}");
            message
        }
    };
    assert!(refused("none", input.to_vec(), "").await.contains("not found"));
    assert!(refused("now", input.to_vec(), "").await.contains("is not asynchronous"));
    assert!(refused("nowhere", input.to_vec(), "").await.contains("S3OutputPath"));
    assert!(refused("later", vec![], "").await.contains("InputLocation is missing"));
    assert!(refused("later", input.to_vec(), "[1]").await.contains("exclude each other"));
    let ttl = vec![input[0], ("requestttlseconds", "21601")];
    assert!(refused("later", ttl, "").await.contains("requestTTLSeconds"));
    let timeout = vec![input[0], ("invocationtimeoutseconds", "3601")];
    assert!(refused("later", timeout, "").await.contains("invocationTimeoutSeconds"));

    for path in ["invocations", "invocations-response-stream"] {
        let request = Request::post(format!("/endpoints/later/{path}")).body(()).unwrap();
        let answer = app.send_signed(request, Bytes::from_static(b"x"), "sagemaker", &app.key()).await;
        let (code, message) = refusal(&answer);
        assert_eq!(code, "ValidationError");
        assert!(message.contains("InvokeEndpointAsync"), "{message}");
    }
    let (_, message) = app.refused("Modelyard.DescribeAsyncQueue", json!({"EndpointName": "now"})).await;
    assert!(message.contains("no queue"), "{message}");

    app.ok("SageMaker.CreateModel", json!({"ModelName": "m", "PrimaryContainer": {"Image": "img:1"}})).await;
    let config = |output: Value| {
        json!({
            "EndpointConfigName": "c",
            "ProductionVariants": [{"VariantName": "v", "ModelName": "m", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}],
            "AsyncInferenceConfig": {"OutputConfig": output},
        })
    };
    let (code, message) = app.refused("SageMaker.CreateEndpointConfig", config(json!({}))).await;
    assert_eq!(code, "ValidationException");
    assert!(message.contains("S3OutputPath"), "{message}");
    let output = json!({"S3OutputPath": "https://results.s3.amazonaws.com/out"});
    let (_, message) = app.refused("SageMaker.CreateEndpointConfig", config(output)).await;
    assert!(message.contains("S3OutputPath"), "{message}");
    let input = json!({"EndpointName": "later", "EndpointConfigName": "real-time"});
    let mut real_time = config(Value::Null);
    real_time["EndpointConfigName"] = "real-time".into();
    real_time.as_object_mut().unwrap().remove("AsyncInferenceConfig");
    app.ok("SageMaker.CreateEndpointConfig", real_time).await;
    let (_, message) = app.refused("SageMaker.UpdateEndpoint", input).await;
    assert!(message.contains("stays asynchronous or real-time"), "{message}");
}

#[tokio::test]
async fn a_request_that_waits_too_long_ends_as_a_failure_and_its_topic_is_told() {
    let app = TestApp::new().await;
    bucket(&app, "results").await;
    app.form("sns", "Action=CreateTopic&Version=2010-03-31&Name=failed", &app.key()).await;
    let url = app.ok("AmazonSQS.CreateQueue", json!({"QueueName": "notices"})).await["QueueUrl"].clone();
    let subscribe = format!(
        "Action=Subscribe&Version=2010-03-31&TopicArn={TOPIC}&Protocol=sqs&Endpoint=arn:aws:sqs:us-east-1:{ACCOUNT}:notices\
         &Attributes.entry.1.key=RawMessageDelivery&Attributes.entry.1.value=true"
    );
    let answer = app.form("sns", &subscribe, &app.key()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    endpoint(&app, "later", json!({"output_path": "s3://results/out", "error_topic": TOPIC})).await;
    let asked = [("inputlocation", "s3://results/in.json"), ("requestttlseconds", "60")];
    let short = invoke(&app, "later", &asked, "").await;
    let long = invoke(&app, "later", &asked[..1], "").await;
    assert_eq!(short.status, 202, "{}", short.text());
    assert_eq!(long.status, 202, "{}", long.text());
    app.clock.advance(61_000);
    let failure = stored(&app, header(&short, "failurelocation")).await;
    assert_eq!(failure["ErrorCode"], "RequestExpired");
    let input = json!({"QueueUrl": url, "WaitTimeSeconds": 20});
    let messages = app.ok("AmazonSQS.ReceiveMessage", input).await;
    let notice: Value = serde_json::from_str(messages["Messages"][0]["Body"].as_str().unwrap()).unwrap();
    assert_eq!(notice["invocationStatus"], "Failed");
    assert_eq!(notice["requestParameters"]["endpointName"], "later");
    assert_eq!(notice["inferenceId"], short.json()["InferenceId"]);
    assert!(notice["failureReason"].as_str().unwrap().contains("60 seconds"), "{notice}");
    assert_eq!(queue(&app, "later").await["Waiting"], 1, "the other one has its six hours");

    app.ok("SageMaker.DeleteEndpoint", json!({"EndpointName": "later"})).await;
    let failure = stored(&app, header(&long, "failurelocation")).await;
    assert_eq!(failure["ErrorCode"], "EndpointDeleted");
    app.until("the endpoint is gone", || async {
        let described = app.call("SageMaker.DescribeEndpoint", json!({"EndpointName": "later"})).await;
        (described.status == 400).then_some(())
    })
    .await;
    let (_, message) = refusal(&invoke(&app, "later", &asked, "").await);
    assert!(message.contains("not found"), "{message}");
}
