//! CloudWatch metrics over the wire.

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};

use crate::app::{Answer, TestApp};

/// A full hour below the time of the tests, in seconds.
const HOUR: i64 = 1_770_000_000 - 2_400;

async fn ok(app: &TestApp, operation: &str, input: Value) -> Value {
    app.ok(&format!("GraniteServiceVersion20100801.{operation}"), input).await
}

async fn refused(app: &TestApp, operation: &str, input: Value) -> (String, String) {
    app.refused(&format!("GraniteServiceVersion20100801.{operation}"), input).await
}

async fn put(app: &TestApp, data: Value) {
    ok(app, "PutMetricData", json!({"Namespace": "Tests", "MetricData": data})).await;
}

fn at(minutes: i64) -> i64 {
    HOUR + minutes * 60
}

/// A minute of the hour as answers have it.
fn moment(minutes: i64) -> f64 {
    at(minutes) as f64
}

/// `loss` of 8, 4, 2 and 1 in the first minutes of the hour, and `errors` of 1 in the first and the third.
async fn with_metrics() -> TestApp {
    let app = TestApp::new().await;
    let host = json!([{"Name": "host", "Value": "a"}]);
    let datum = |name: &str, minutes: i64, value: f64| json!({"MetricName": name, "Timestamp": at(minutes), "Value": value, "Dimensions": host});
    put(
        &app,
        json!([
            datum("loss", 0, 8.0),
            datum("loss", 1, 4.0),
            datum("loss", 2, 2.0),
            datum("loss", 3, 1.0),
            datum("errors", 0, 1.0),
            datum("errors", 2, 1.0),
        ]),
    )
    .await;
    app
}

fn stat(id: &str, name: &str, stat: &str) -> Value {
    let metric =
        json!({"Namespace": "Tests", "MetricName": name, "Dimensions": [{"Name": "host", "Value": "a"}]});
    json!({"Id": id, "MetricStat": {"Metric": metric, "Period": 60, "Stat": stat}})
}

fn expression(id: &str, text: &str) -> Value {
    json!({"Id": id, "Expression": text})
}

fn queries(queries: &[Value]) -> Value {
    json!({"MetricDataQueries": queries, "StartTime": HOUR, "EndTime": at(4), "ScanBy": "TimestampAscending"})
}

fn values(answer: &Value, result: usize) -> Vec<f64> {
    let values = answer["MetricDataResults"][result]["Values"].as_array().unwrap();
    values.iter().map(|value| value.as_f64().unwrap()).collect()
}

#[tokio::test]
async fn all_forms_of_data_are_summed_up() {
    let app = TestApp::new().await;
    put(
        &app,
        json!([
            {"MetricName": "m", "Timestamp": at(0), "Value": 1.0},
            {"MetricName": "m", "Timestamp": at(0) + 59, "Values": [2.0, 3.0], "Counts": [3.0, 1.0]},
            {"MetricName": "m", "Timestamp": at(1), "Unit": "Bytes",
             "StatisticValues": {"SampleCount": 4.0, "Sum": 10.0, "Minimum": 1.0, "Maximum": 5.0}},
        ]),
    )
    .await;
    let input = json!({
        "Namespace": "Tests", "MetricName": "m", "StartTime": HOUR, "EndTime": at(2), "Period": 60,
        "Statistics": ["SampleCount", "Average", "Sum", "Minimum", "Maximum"],
    });
    let answer = ok(&app, "GetMetricStatistics", input.clone()).await;
    assert_eq!(
        answer,
        json!({"Label": "m", "Datapoints": [
            {"Timestamp": moment(0), "SampleCount": 5.0, "Average": 2.0, "Sum": 10.0, "Minimum": 1.0, "Maximum": 3.0, "Unit": "None"},
            {"Timestamp": moment(1), "SampleCount": 4.0, "Average": 2.5, "Sum": 10.0, "Minimum": 1.0, "Maximum": 5.0, "Unit": "Bytes"},
        ]})
    );
    let mut bytes = input.clone();
    bytes["Unit"] = "Bytes".into();
    assert_eq!(ok(&app, "GetMetricStatistics", bytes).await["Datapoints"].as_array().unwrap().len(), 1);
    let mut extended = input;
    extended.as_object_mut().unwrap().remove("Statistics");
    extended["ExtendedStatistics"] = json!(["p50", "p100", "tm80"]);
    let answer = ok(&app, "GetMetricStatistics", extended).await;
    assert_eq!(
        answer["Datapoints"],
        json!([
            {"Timestamp": moment(0), "Unit": "None", "ExtendedStatistics": {"p50": 2.0, "p100": 3.0, "tm80": 1.75}},
            {"Timestamp": moment(1), "Unit": "Bytes"},
        ])
    );
}

#[tokio::test]
async fn data_that_cannot_be_is_refused_in_the_words_of_the_service() {
    let app = TestApp::new().await;
    let now = 1_770_000_000;
    for (datum, code, place) in [
        (
            json!({}),
            "MissingRequiredParameterException",
            "At least one of the parameters MetricData.member.1.Value",
        ),
        (
            json!({"Value": 1.0, "Values": [1.0]}),
            "InvalidParameterCombinationException",
            "mutually exclusive",
        ),
        (json!({"Value": "NaN"}), "InvalidParameterValueException", "The value NaN for parameter"),
        (json!({"Value": "-Infinity"}), "InvalidParameterValueException", "-Infinity"),
        (json!({"Value": 1e109}), "InvalidParameterValueException", "MetricData.member.1.Value is invalid"),
        (json!({"Values": vec![0.5; 151]}), "InvalidParameterValueException", "size greater than 150"),
        (json!({"Values": [1.0], "Counts": [1.0, 2.0]}), "InvalidParameterValueException", "the same size"),
        (json!({"Values": [1.0], "Counts": [0.0]}), "InvalidParameterValueException", "Counts.member.1"),
        (json!({"Value": 1.0, "Counts": [1.0]}), "InvalidParameterCombinationException", "Counts goes with"),
        (
            json!({"Value": 1.0, "Timestamp": now - 15 * 86_400}),
            "InvalidParameterValueException",
            "past two weeks",
        ),
        (json!({"Value": 1.0, "Timestamp": now + 7_260}), "InvalidParameterValueException", "two hours"),
        (
            json!({"Value": 1.0, "StorageResolution": 5}),
            "InvalidParameterValueException",
            "StorageResolution",
        ),
        (
            json!({"Value": 1.0, "Dimensions": [{"Name": "a", "Value": "1"}, {"Name": "a", "Value": "2"}]}),
            "InvalidParameterValueException",
            "more than once",
        ),
        (
            json!({"StatisticValues": {"SampleCount": 0.0, "Sum": 0.0, "Minimum": 0.0, "Maximum": 0.0}}),
            "InvalidParameterValueException",
            "SampleCount is invalid",
        ),
        (
            json!({"StatisticValues": {"SampleCount": 1.0, "Sum": 0.0, "Minimum": 2.0, "Maximum": 1.0}}),
            "InvalidParameterCombinationException",
            "Minimum must not be greater",
        ),
    ] {
        let mut named = datum.clone();
        named["MetricName"] = "m".into();
        let input = json!({"Namespace": "Tests", "MetricData": [named]});
        let (found, message) = refused(&app, "PutMetricData", input).await;
        assert_eq!(found, code, "{datum}: {message}");
        assert!(message.contains(place), "{datum}: {message}");
    }
    let one = json!({"MetricName": "m", "Value": 1.0});
    for (input, code) in [
        (json!({"Namespace": "Tests"}), "MissingRequiredParameterException"),
        (json!({"Namespace": "AWS/EC2", "MetricData": [one]}), "InvalidParameterValueException"),
        (
            json!({"Namespace": "Tests", "MetricData": vec![one.clone(); 1_001]}),
            "InvalidParameterValueException",
        ),
        (json!({"Namespace": "Tests", "MetricData": [one], "EntityMetricData": []}), "ValidationException"),
        (json!({"MetricData": [one]}), "ValidationException"),
    ] {
        let (found, message) = refused(&app, "PutMetricData", input).await;
        assert_eq!(found, code, "{message}");
    }
    // Nothing of a request that is refused is kept.
    assert_eq!(ok(&app, "ListMetrics", json!({})).await["Metrics"], json!([]));
}

#[tokio::test]
async fn statistics_are_refused_where_the_service_refuses_them() {
    let app = TestApp::new().await;
    let good = json!({
        "Namespace": "N", "MetricName": "m", "StartTime": HOUR, "EndTime": at(2), "Period": 60, "Statistics": ["Sum"],
    });
    assert_eq!(ok(&app, "GetMetricStatistics", good.clone()).await, json!({"Label": "m", "Datapoints": []}));
    for (change, code) in [
        (json!({"Statistics": null}), "MissingRequiredParameterException"),
        (json!({"ExtendedStatistics": ["p50"]}), "InvalidParameterCombinationException"),
        (json!({"Statistics": null, "ExtendedStatistics": ["p101"]}), "InvalidParameterValueException"),
        (json!({"Statistics": null, "ExtendedStatistics": ["Sum"]}), "InvalidParameterValueException"),
        (json!({"Period": 45}), "InvalidParameterValueException"),
        (json!({"EndTime": HOUR}), "InvalidParameterCombinationException"),
        (json!({"StartTime": HOUR - 86_400, "Period": 1}), "InvalidParameterCombinationException"),
        (json!({"Statistics": ["Median"]}), "ValidationException"),
    ] {
        let mut input = good.clone();
        input.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let (found, message) = refused(&app, "GetMetricStatistics", input).await;
        assert_eq!(found, code, "{change}: {message}");
    }
}

#[tokio::test]
async fn metrics_and_expressions_are_answered_together() {
    let app = with_metrics().await;
    let mut hidden = stat("m2", "errors", "Sum");
    hidden["ReturnData"] = false.into();
    let mut labelled = expression("e2", "FILL(m2, 0)");
    labelled["Label"] = "${LABEL}: ${SUM}".into();
    let input = queries(&[stat("m1", "loss", "Average"), hidden, expression("e1", "e2 / m1 * 8"), labelled]);
    let answer = ok(&app, "GetMetricData", input.clone()).await;
    assert_eq!(answer["Messages"], json!([]));
    assert_eq!(
        answer["MetricDataResults"],
        json!([
            {"Id": "m1", "Label": "loss", "Timestamps": [moment(0), moment(1), moment(2), moment(3)], "Values": [8.0, 4.0, 2.0, 1.0], "StatusCode": "Complete"},
            {"Id": "e1", "Label": "e1", "Timestamps": [moment(0), moment(1), moment(2), moment(3)], "Values": [1.0, 0.0, 4.0, 0.0], "StatusCode": "Complete"},
            {"Id": "e2", "Label": "e2: 2", "Timestamps": [moment(0), moment(1), moment(2), moment(3)], "Values": [1.0, 0.0, 1.0, 0.0], "StatusCode": "Complete"},
        ])
    );
    // The newest comes first unless the request says otherwise; arrays become several results.
    let mut input = queries(&[
        stat("m1", "loss", "p90"),
        stat("m2", "errors", "SampleCount"),
        expression("e1", "METRICS() * 2"),
    ]);
    input.as_object_mut().unwrap().remove("ScanBy");
    let answer = ok(&app, "GetMetricData", input).await;
    assert_eq!(values(&answer, 0), [1.0, 2.0, 4.0, 8.0]);
    assert_eq!((values(&answer, 2), values(&answer, 3)), (vec![2.0, 4.0, 8.0, 16.0], vec![2.0, 2.0]));
    assert_eq!(answer["MetricDataResults"][3]["Label"], "e1 errors");
}

#[tokio::test]
async fn data_comes_in_pages() {
    let app = with_metrics().await;
    let mut input = queries(&[stat("m1", "loss", "Sum"), stat("m2", "errors", "Sum")]);
    input["MaxDatapoints"] = 3.into();
    let mut seen = Vec::new();
    loop {
        let answer = ok(&app, "GetMetricData", input.clone()).await;
        for (index, result) in answer["MetricDataResults"].as_array().unwrap().iter().enumerate() {
            seen.push((result["Id"].as_str().unwrap().to_owned(), values(&answer, index)));
        }
        match &answer["NextToken"] {
            Value::Null => break,
            token => input["NextToken"] = token.clone(),
        }
    }
    let expected = [("m1", vec![8.0, 4.0, 2.0]), ("m1", vec![1.0]), ("m2", vec![1.0, 1.0])]
        .map(|(id, values)| (id.to_owned(), values));
    assert_eq!(seen, expected);
    input["EndTime"] = at(3).into();
    assert_eq!(refused(&app, "GetMetricData", input).await.0, "InvalidNextToken");
}

#[tokio::test]
async fn queries_that_make_no_sense_are_refused() {
    let app = with_metrics().await;
    let both = json!({"Id": "a", "Expression": "1", "MetricStat": stat("a", "loss", "Sum")["MetricStat"]});
    let mut hidden = expression("e1", "1");
    hidden["ReturnData"] = false.into();
    let mut foreign = stat("m1", "loss", "Sum");
    foreign["AccountId"] = "999999999999".into();
    let mut label = expression("e1", "1");
    label["Label"] = "${NOSUCH}".into();
    let mut period = stat("m1", "loss", "Sum");
    period["MetricStat"]["Period"] = 7.into();
    for (wrong, code, place) in [
        (vec![], "ValidationException", "must not be empty"),
        (vec![stat("M1", "loss", "Sum")], "ValidationException", "^[a-z][a-zA-Z0-9_]*$"),
        (vec![stat("a", "loss", "Sum"), expression("a", "1")], "ValidationException", "not unique"),
        (vec![stat("a", "loss", "Median")], "ValidationException", "not a valid statistic"),
        (vec![json!({"Id": "a"})], "ValidationException", "either Expression or MetricStat"),
        (vec![both], "ValidationException", "either Expression or MetricStat"),
        (vec![hidden], "ValidationException", "ReturnData"),
        (vec![foreign], "ValidationException", "AccountId"),
        (vec![label], "ValidationException", "NOSUCH"),
        (vec![period], "InvalidParameterValueException", "Period"),
        (
            vec![expression("e1", "m1 +")],
            "ValidationException",
            "Error in expression 'e1' [it ends too early]",
        ),
        (vec![expression("e1", "e2"), expression("e2", "e1")], "ValidationException", "depends on itself"),
        (
            vec![expression("e1", "SEARCH('{N}', 'Sum')")],
            "ValidationException",
            "does not have the function SEARCH",
        ),
    ] {
        let (found, message) = refused(&app, "GetMetricData", queries(&wrong)).await;
        assert_eq!(found, code, "{message}");
        assert!(message.contains(place), "{message}");
    }
    let mut long = queries(&[stat("m1", "loss", "Sum")]);
    long["StartTime"] = (HOUR - 400 * 86_400).into();
    long["MetricDataQueries"][0]["MetricStat"]["Period"] = 1.into();
    assert!(refused(&app, "GetMetricData", long).await.1.contains("exceeds the limit"));
    let ages = json!({"MetricDataQueries": [{"Id": "e1", "Expression": "1", "Period": 1}], "StartTime": 0, "EndTime": 253_402_300_799_i64});
    assert!(refused(&app, "GetMetricData", ages).await.1.contains("exceeds the limit"));
}

#[tokio::test]
async fn lists_are_filtered_and_paged_and_kept_apart() {
    let app = TestApp::new().await;
    let datum = |index: i64| {
        let dimensions = json!([{"Name": "index", "Value": format!("{index:04}")}]);
        json!({"MetricName": "m", "Value": 1.0, "Timestamp": 1_770_000_000 - index * 60, "Dimensions": dimensions})
    };
    put(&app, (0..600).map(datum).collect()).await;
    let first = ok(&app, "ListMetrics", json!({"Namespace": "Tests"})).await;
    assert_eq!(first["Metrics"].as_array().unwrap().len(), 500);
    let second =
        ok(&app, "ListMetrics", json!({"Namespace": "Tests", "NextToken": first["NextToken"]})).await;
    assert_eq!(second["Metrics"].as_array().unwrap().len(), 100);
    assert_eq!(second["NextToken"], Value::Null);
    let recent = ok(&app, "ListMetrics", json!({"RecentlyActive": "PT3H"})).await;
    let recent = recent["Metrics"].as_array().unwrap().len();
    assert!((180..=191).contains(&recent), "{recent}");
    let filter = json!({"MetricName": "m", "Dimensions": [{"Name": "index", "Value": "0007"}]});
    let expected =
        json!({"Namespace": "Tests", "MetricName": "m", "Dimensions": [{"Name": "index", "Value": "0007"}]});
    assert_eq!(ok(&app, "ListMetrics", filter).await["Metrics"], json!([expected]));
    assert_eq!(
        refused(&app, "ListMetrics", json!({"NextToken": "x"})).await.0,
        "InvalidParameterValueException"
    );
    assert_eq!(
        refused(&app, "ListMetrics", json!({"OwningAccount": "999999999999"})).await.0,
        "ValidationException"
    );
    let other = app.other_account("222222222222").await;
    let target = "GraniteServiceVersion20100801.ListMetrics";
    assert_eq!(app.call_as(target, json!({}), &other).await.json()["Metrics"], json!([]));
}

async fn cbor(app: &TestApp, operation: &str, body: &'static [u8]) -> Answer {
    let path = format!("/service/GraniteServiceVersion20100801/operation/{operation}");
    let request = Request::post(path)
        .header("smithy-protocol", "rpc-v2-cbor")
        .header("content-type", "application/cbor")
        .body(())
        .unwrap();
    app.send_signed(request, Bytes::from_static(body), "monitoring", &app.key()).await
}

#[tokio::test]
async fn the_three_protocols_of_the_service_are_spoken() {
    let app = TestApp::new().await;
    let form = "Action=PutMetricData&Version=2010-08-01&Namespace=Tests&MetricData.member.1.MetricName=m&MetricData.member.1.Value=2";
    let answer = app.form("monitoring", form, &app.key()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.text().contains("<PutMetricDataResponse"), "{}", answer.text());
    // {"Namespace": "Tests", "MetricData": [{"MetricName": "m", "Value": 3.0}]}
    let body = b"\xa2\x69Namespace\x65Tests\x6aMetricData\x81\xa2\x6aMetricName\x61m\x65Value\xfb\x40\x08\0\0\0\0\0\0";
    let answer = cbor(&app, "PutMetricData", body).await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0), "{}", answer.text());
    let input = json!({
        "Namespace": "Tests", "MetricName": "m", "StartTime": HOUR, "EndTime": at(60), "Period": 3600, "Statistics": ["Sum"],
    });
    assert_eq!(ok(&app, "GetMetricStatistics", input).await["Datapoints"][0]["Sum"], 5.0);
    let answer = cbor(&app, "ListMetrics", b"\xa0").await;
    assert!(answer.text().contains("Tests"), "{:?}", answer.body);
    let listed = app.form("monitoring", "Action=ListMetrics&Version=2010-08-01", &app.key()).await;
    assert!(listed.text().contains("<MetricName>m</MetricName>"), "{}", listed.text());
    // Clients that came from query get its codes.
    let wrong = app.form("monitoring", &format!("{form}&Namespace="), &app.key()).await;
    assert_eq!(wrong.status, 400);
    let wrong = app.form("monitoring", &form.replace("=Tests", "=AWS%2FX"), &app.key()).await;
    assert!(wrong.text().contains("<Code>InvalidParameterValue</Code>"), "{}", wrong.text());
}
