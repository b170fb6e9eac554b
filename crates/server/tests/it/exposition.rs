//! The page for Prometheus, and who may see it.

use http::Request;
use serde_json::json;
use wire::Peer;

use crate::app::{Answer, TestApp, training_job};

async fn scrape(app: &TestApp, peer: &str, token: Option<&str>) -> Answer {
    let mut request = Request::get("/_modelyard/metrics");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let mut request = request.body(wire::empty()).unwrap();
    request.extensions_mut().insert(Peer(peer.parse().unwrap()));
    app.send(request).await
}

#[tokio::test]
async fn what_happened_is_counted() {
    let app = TestApp::new().await;
    app.ok("SageMaker.CreateTrainingJob", training_job("counted")).await;
    app.refused("SageMaker.DescribeTrainingJob", json!({"TrainingJobName": "none"})).await;
    let metric = json!({"Namespace": "N", "MetricData": [{"MetricName": "m", "Value": 1.0}]});
    app.ok("GraniteServiceVersion20100801.PutMetricData", metric).await;
    let answer = scrape(&app, "127.0.0.1:5000", None).await;
    assert_eq!(answer.status, 200);
    assert!(answer.headers["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    let text = answer.text();
    for line in [
        "modelyard_requests_total{service=\"sagemaker\",operation=\"CreateTrainingJob\",code=\"OK\"} 1",
        "modelyard_requests_total{service=\"sagemaker\",operation=\"DescribeTrainingJob\",code=\"ValidationException\"} 1",
        "modelyard_request_duration_seconds_count{service=\"cloudwatch\",operation=\"PutMetricData\"} 1",
        "modelyard_resources{kind=\"training-job\",status=\"",
        "modelyard_metric_series 1",
        "modelyard_metric_samples 1",
        "modelyard_store_bytes{store=\"database\"} ",
        "# TYPE modelyard_request_duration_seconds histogram",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    // Each line is a comment or a sample, and each family is there once.
    let families: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
    let mut once = families.clone();
    once.dedup();
    assert_eq!(once, families);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let value = line.rsplit_once(' ').unwrap().1;
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
}

#[tokio::test]
async fn others_need_the_token() {
    let app = TestApp::new().await;
    assert_eq!(scrape(&app, "[::1]:5000", None).await.status, 200);
    assert_eq!(scrape(&app, "[::ffff:127.0.0.1]:5000", None).await.status, 200);
    let answer = scrape(&app, "192.0.2.1:5000", None).await;
    assert_eq!(answer.status, 403);
    assert!(answer.text().contains("metrics_token"));
    let app = TestApp::with(|config| config.metrics_token = Some("s3cret".into())).await;
    for (peer, token, status) in [
        ("192.0.2.1:5000", Some("s3cret"), 200),
        ("127.0.0.1:5000", Some("s3cret"), 200),
        ("127.0.0.1:5000", None, 403),
        ("192.0.2.1:5000", Some("s3cre"), 403),
        ("192.0.2.1:5000", Some(""), 403),
    ] {
        assert_eq!(scrape(&app, peer, token).await.status, status, "{peer} {token:?}");
    }
}
