//! CloudWatch alarms over the wire: a clock that stands still, and an evaluator that is rung.

use serde_json::{Value, json};

use crate::app::TestApp;

/// The time of the tests, in seconds: a full minute.
const NOW: i64 = 1_770_000_000;

async fn ok(app: &TestApp, operation: &str, input: Value) -> Value {
    app.ok(&format!("GraniteServiceVersion20100801.{operation}"), input).await
}

async fn refused(app: &TestApp, operation: &str, input: Value) -> (String, String) {
    app.refused(&format!("GraniteServiceVersion20100801.{operation}"), input).await
}

async fn put(app: &TestApp, metric: &str, values: &[(i64, f64)]) {
    let datum = |(at, value): &(i64, f64)| json!({"MetricName": metric, "Timestamp": NOW + at, "Value": value, "StorageResolution": 1});
    let data: Vec<Value> = values.iter().map(datum).collect();
    ok(app, "PutMetricData", json!({"Namespace": "Tests", "MetricData": data})).await;
}

fn over(name: &str, metric: &str) -> Value {
    json!({
        "AlarmName": name, "Namespace": "Tests", "MetricName": metric, "Statistic": "Maximum", "Period": 10,
        "EvaluationPeriods": 2, "Threshold": 5.0, "ComparisonOperator": "GreaterThanThreshold",
    })
}

async fn described(app: &TestApp, name: &str) -> Value {
    let types = json!(["MetricAlarm", "CompositeAlarm"]);
    let answer = ok(app, "DescribeAlarms", json!({"AlarmNames": [name], "AlarmTypes": types})).await;
    let all = [&answer["MetricAlarms"], &answer["CompositeAlarms"]];
    all.iter().flat_map(|list| list.as_array().unwrap()).next().cloned().unwrap_or_default()
}

/// Waits until an alarm is in a state, and describes it.
async fn becomes(app: &TestApp, name: &str, state: &str) -> Value {
    app.until(&format!("{name} is {state}"), || async {
        app.app.alarms.ring();
        let alarm = described(app, name).await;
        (alarm["StateValue"] == state).then_some(alarm)
    })
    .await
}

async fn history(app: &TestApp, name: &str, kind: &str) -> Vec<Value> {
    let input = json!({"AlarmName": name, "HistoryItemType": kind, "ScanBy": "TimestampAscending"});
    ok(app, "DescribeAlarmHistory", input).await["AlarmHistoryItems"].as_array().unwrap().clone()
}

#[tokio::test]
async fn an_alarm_follows_its_metric() {
    let app = TestApp::new().await;
    app.ok("AmazonSQS.CreateQueue", json!({"QueueName": "alarms"})).await;
    let rule = json!({"Name": "alarms", "EventPattern": "{\"source\": [\"aws.cloudwatch\"]}"});
    app.ok("AWSEvents.PutRule", rule).await;
    let target = json!({"Id": "q", "Arn": "arn:aws:sqs:us-east-1:123456789012:alarms"});
    app.ok("AWSEvents.PutTargets", json!({"Rule": "alarms", "Targets": [target]})).await;
    ok(&app, "PutMetricAlarm", over("high", "loss")).await;
    let alarm = becomes(&app, "high", "INSUFFICIENT_DATA").await;
    assert_eq!(alarm["StateReason"], "Unchecked: Initial alarm creation");
    assert_eq!(alarm["AlarmArn"], "arn:aws:cloudwatch:us-east-1:123456789012:alarm:high");
    assert_eq!((&alarm["ActionsEnabled"], &alarm["AlarmActions"]), (&json!(true), &json!([])));

    let mut watch = app.app.alarms.watch();
    put(&app, "loss", &[(-15, 7.0), (-5, 9.0)]).await;
    let alarm = becomes(&app, "high", "ALARM").await;
    assert_eq!(
        alarm["StateReason"],
        "Threshold Crossed: 2 out of the last 2 datapoints [9.0 (02/02/26 02:39:50), 7.0 (02/02/26 02:39:40)] were greater than \
         the threshold (5.0) (minimum 2 datapoints for OK -> ALARM transition)."
    );
    let data: Value = serde_json::from_str(alarm["StateReasonData"].as_str().unwrap()).unwrap();
    assert_eq!((&data["recentDatapoints"], &data["statistic"]), (&json!([7.0, 9.0]), &json!("Maximum")));
    watch.changed().await.unwrap();
    let names = ["high".to_owned(), "none".to_owned()];
    let states =
        server::monitoring::alarm_states(&app.app, ("123456789012", "us-east-1"), &names).await.unwrap();
    assert_eq!(
        states.into_iter().collect::<Vec<_>>(),
        [("high".to_owned(), server::monitoring::AlarmState::Alarm)]
    );

    app.clock.advance(20_000);
    put(&app, "loss", &[(5, 1.0), (15, 2.0)]).await;
    becomes(&app, "high", "OK").await;
    app.clock.advance(60_000);
    let alarm = becomes(&app, "high", "INSUFFICIENT_DATA").await;
    assert_eq!(alarm["StateReason"], "Insufficient Data: 2 datapoints were unknown.");

    let moves = history(&app, "high", "StateUpdate").await;
    let summaries: Vec<&str> = moves.iter().map(|item| item["HistorySummary"].as_str().unwrap()).collect();
    assert_eq!(
        summaries,
        [
            "Alarm updated from INSUFFICIENT_DATA to ALARM",
            "Alarm updated from ALARM to OK",
            "Alarm updated from OK to INSUFFICIENT_DATA",
        ]
    );
    let url = "http://127.0.0.1:1/123456789012/alarms";
    let message = app
        .until("the event comes", || async {
            let received = app.ok("AmazonSQS.ReceiveMessage", json!({"QueueUrl": url})).await;
            received["Messages"][0]["Body"].as_str().map(str::to_owned)
        })
        .await;
    let event: Value = serde_json::from_str(&message).unwrap();
    assert_eq!(event["detail-type"], "CloudWatch Alarm State Change");
    let detail = &event["detail"];
    assert_eq!(detail["alarmName"], "high");
    assert_eq!(detail["previousState"]["value"], "INSUFFICIENT_DATA");
    assert_eq!(detail["configuration"]["metrics"][0]["metricStat"]["metric"]["name"], "loss");
}

#[tokio::test]
async fn an_alarm_watches_an_expression() {
    let app = TestApp::new().await;
    let stat = |id: &str, name: &str| {
        let metric = json!({"Namespace": "Tests", "MetricName": name});
        json!({"Id": id, "ReturnData": false, "MetricStat": {"Metric": metric, "Period": 10, "Stat": "Sum"}})
    };
    let mut alarm = json!({
        "AlarmName": "rate", "EvaluationPeriods": 1, "Threshold": 10.0,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold", "TreatMissingData": "notBreaching",
        "Metrics": [stat("errors", "errors"), stat("calls", "calls"),
                    {"Id": "rate", "Expression": "100 * errors / calls", "Label": "rate"}],
    });
    ok(&app, "PutMetricAlarm", alarm.clone()).await;
    let shown = becomes(&app, "rate", "OK").await;
    assert!(shown["StateReason"].as_str().unwrap().contains("treated as [NonBreaching]"));
    put(&app, "calls", &[(-9, 20.0), (-8, 20.0)]).await;
    put(&app, "errors", &[(-8, 4.0)]).await;
    let shown = becomes(&app, "rate", "ALARM").await;
    assert!(shown["StateReason"].as_str().unwrap().contains("[10.0 ("));
    // Other settings leave the state, and count from then on.
    alarm["Threshold"] = json!(11.0);
    ok(&app, "PutMetricAlarm", alarm).await;
    becomes(&app, "rate", "OK").await;
    let changes = history(&app, "rate", "ConfigurationUpdate").await;
    let data: Value = serde_json::from_str(changes[1]["HistoryData"].as_str().unwrap()).unwrap();
    assert_eq!(data["originalUpdatedFields"], json!({"threshold": 10.0}));
}

#[tokio::test]
async fn composite_alarms_follow_others_and_their_actions_wait() {
    let app = TestApp::new().await;
    for name in ["a", "b", "quiet"] {
        let mut alarm = over(name, "nothing");
        alarm["TreatMissingData"] = json!("ignore");
        ok(&app, "PutMetricAlarm", alarm).await;
    }
    let function = "arn:aws:lambda:us-east-1:123456789012:function:page";
    ok(&app, "PutCompositeAlarm", json!({
        "AlarmName": "both", "AlarmRule": "ALARM(a) AND ALARM(\"arn:aws:cloudwatch:us-east-1:123456789012:alarm:b\")",
    })).await;
    ok(&app, "PutCompositeAlarm", json!({
        "AlarmName": "top", "AlarmRule": "ALARM(both) OR FALSE", "AlarmActions": [function],
        "ActionsSuppressor": "quiet", "ActionsSuppressorWaitPeriod": 30, "ActionsSuppressorExtensionPeriod": 60,
    })).await;
    becomes(&app, "top", "OK").await;
    let set = |name: &'static str, state: &'static str| {
        let input = json!({"AlarmName": name, "StateValue": state, "StateReason": "test"});
        ok(&app, "SetAlarmState", input)
    };
    set("a", "ALARM").await;
    set("b", "ALARM").await;
    let both = becomes(&app, "both", "ALARM").await;
    assert!(both["StateReason"].as_str().unwrap().contains(" transitioned to ALARM at "), "{both}");
    let top = becomes(&app, "top", "ALARM").await;
    assert_eq!(top["ActionsSuppressedBy"], "WaitPeriod");
    let executed = || async {
        let items = history(&app, "top", "Action").await;
        items
            .iter()
            .filter(|item| item["HistorySummary"].as_str().unwrap().starts_with("Successfully"))
            .count()
    };
    assert_eq!(executed().await, 0);
    set("quiet", "ALARM").await;
    let suppressed_by = |by: &'static str| {
        let app = &app;
        async move {
            app.until(by, || async {
                app.app.alarms.ring();
                (described(app, "top").await["ActionsSuppressedBy"] == by).then_some(())
            })
            .await;
        }
    };
    suppressed_by("Alarm").await;
    set("quiet", "OK").await;
    suppressed_by("ExtensionPeriod").await;
    app.clock.advance(61_000);
    app.until("the action runs", || async {
        app.app.alarms.ring();
        (executed().await == 1).then_some(())
    })
    .await;
    assert!(described(&app, "top").await["ActionsSuppressedBy"].is_null());

    let children = ok(&app, "DescribeAlarms", json!({"ChildrenOfAlarmName": "both"})).await;
    assert_eq!(children["MetricAlarms"].as_array().unwrap().len(), 2);
    assert!(children["MetricAlarms"][0]["MetricName"].is_null());
    let parents = ok(&app, "DescribeAlarms", json!({"ParentsOfAlarmName": "both"})).await;
    assert_eq!(parents["CompositeAlarms"][0]["AlarmName"], "top");
    let cycle = json!({"AlarmName": "both", "AlarmRule": "ALARM(top)"});
    let (code, text) = refused(&app, "PutCompositeAlarm", cycle).await;
    assert!(code == "ValidationException" && text.contains("depend on itself"), "{code} {text}");
    let (code, text) = refused(&app, "DeleteAlarms", json!({"AlarmNames": ["a", "b"]})).await;
    assert_eq!(
        (&*code, &*text),
        ("ValidationException", "Cannot delete a,b as there are composite alarm(s) depending on them.")
    );
    let (_, text) = refused(&app, "DeleteAlarms", json!({"AlarmNames": ["both", "top"]})).await;
    assert!(text.contains("More than one composite alarm"), "{text}");
    ok(&app, "DeleteAlarms", json!({"AlarmNames": ["top"]})).await;
    ok(&app, "DeleteAlarms", json!({"AlarmNames": ["both", "a", "b", "none"]})).await;
    assert_eq!(refused(&app, "DeleteAlarms", json!({"AlarmNames": ["a"]})).await.0, "ResourceNotFound");
    assert_eq!(history(&app, "top", "ConfigurationUpdate").await.len(), 2);
}

#[tokio::test]
async fn alarms_are_listed_switched_and_tagged() {
    let app = TestApp::new().await;
    for number in 0..5 {
        let mut alarm = over(&format!("one-{number}"), "m");
        alarm["Dimensions"] = json!([{"Name": "host", "Value": number.to_string()}]);
        alarm["Tags"] = json!([{"Key": "team", "Value": "a"}]);
        ok(&app, "PutMetricAlarm", alarm).await;
    }
    ok(&app, "PutCompositeAlarm", json!({"AlarmName": "one-c", "AlarmRule": "NOT ALARM(one-1)"})).await;
    becomes(&app, "one-c", "ALARM").await;
    let mut names = Vec::new();
    let mut input = json!({"AlarmNamePrefix": "one-", "MaxRecords": 2});
    loop {
        let page = ok(&app, "DescribeAlarms", input.clone()).await;
        assert_eq!(page["CompositeAlarms"], json!([]));
        names.extend(page["MetricAlarms"].as_array().unwrap().iter().map(|one| one["AlarmName"].clone()));
        match &page["NextToken"] {
            Value::Null => break,
            token => input["NextToken"] = token.clone(),
        }
    }
    assert_eq!(names, ["one-0", "one-1", "one-2", "one-3", "one-4"]);
    let types = json!({"AlarmTypes": ["CompositeAlarm"], "StateValue": "ALARM"});
    let found = ok(&app, "DescribeAlarms", types).await;
    assert_eq!(found["CompositeAlarms"][0]["AlarmName"], "one-c");
    let metric =
        json!({"MetricName": "m", "Namespace": "Tests", "Dimensions": [{"Name": "host", "Value": "3"}]});
    let found = ok(&app, "DescribeAlarmsForMetric", metric).await;
    assert_eq!(found["MetricAlarms"].as_array().unwrap().len(), 1);
    assert_eq!(found["MetricAlarms"][0]["AlarmName"], "one-3");

    ok(&app, "DisableAlarmActions", json!({"AlarmNames": ["one-0", "none"]})).await;
    assert_eq!(described(&app, "one-0").await["ActionsEnabled"], false);
    ok(&app, "EnableAlarmActions", json!({"AlarmNames": ["one-0"]})).await;
    assert_eq!(described(&app, "one-0").await["ActionsEnabled"], true);

    let arn = json!("arn:aws:cloudwatch:us-east-1:123456789012:alarm:one-0");
    let tags = json!([{"Key": "stage", "Value": "test"}]);
    ok(&app, "TagResource", json!({"ResourceARN": arn, "Tags": tags})).await;
    ok(&app, "UntagResource", json!({"ResourceARN": arn, "TagKeys": ["team"]})).await;
    assert_eq!(ok(&app, "ListTagsForResource", json!({"ResourceARN": arn})).await["Tags"], tags);
    let gone = json!({"ResourceARN": "arn:aws:cloudwatch:us-east-1:123456789012:alarm:none"});
    assert_eq!(refused(&app, "ListTagsForResource", gone).await.0, "ResourceNotFoundException");
}

#[tokio::test]
async fn requests_that_cannot_be_are_refused_by_name() {
    let app = TestApp::new().await;
    let topic = "arn:aws:sns:eu-west-1:123456789012:t";
    let policy =
        "arn:aws:autoscaling:us-east-1:123456789012:scalingPolicy:x:resource/sagemaker/e:policyName/p";
    for (member, value, expected) in [
        ("Period", json!(45), "Period"),
        ("EvaluationPeriods", json!(9000), "86400"),
        ("DatapointsToAlarm", json!(3), "DatapointsToAlarm"),
        ("TreatMissingData", json!("zero"), "TreatMissingData"),
        ("ComparisonOperator", json!("GreaterThanUpperThreshold"), "GreaterThanUpperThreshold"),
        ("ThresholdMetricId", json!("band"), "ThresholdMetricId"),
        ("EvaluationInterval", json!(60), "EvaluationInterval"),
        ("AlarmActions", json!([topic]), "another account or region"),
        ("AlarmActions", json!([policy]), "scaling policy"),
        ("OKActions", json!(["nothing"]), "Invalid arn syntax: nothing"),
        ("Tags", json!([{"Key": "aws:x", "Value": ""}]), "aws:"),
    ] {
        let mut alarm = over("wrong", "m");
        alarm[member] = value;
        let (code, text) = refused(&app, "PutMetricAlarm", alarm).await;
        assert!(code == "ValidationException" && text.contains(expected), "{member}: {code} {text}");
    }
    for (rule, expected) in [
        ("ALARM(", "AlarmRule"),
        ("ALARM(none)", "alarms [none] in the alarm rule do not exist"),
        ("ALARM(\"arn:aws:cloudwatch:eu-west-1:123456789012:alarm:a\")", "account and region"),
    ] {
        let (code, text) =
            refused(&app, "PutCompositeAlarm", json!({"AlarmName": "wrong", "AlarmRule": rule})).await;
        assert!(code == "ValidationException" && text.contains(expected), "{rule}: {code} {text}");
    }
    let set = json!({"AlarmName": "none", "StateValue": "OK", "StateReason": ""});
    assert_eq!(refused(&app, "SetAlarmState", set.clone()).await.0, "ResourceNotFound");
    ok(&app, "PutMetricAlarm", over("none", "m")).await;
    let mut wrong = set;
    wrong["StateReasonData"] = json!("{");
    assert!(refused(&app, "SetAlarmState", wrong).await.0.starts_with("InvalidFormat"));
    let composite = json!({"AlarmName": "none", "AlarmRule": "TRUE"});
    assert!(refused(&app, "PutCompositeAlarm", composite).await.1.contains("another type"));
    let both = json!({"AlarmNames": ["none"], "AlarmNamePrefix": "n"});
    assert_eq!(refused(&app, "DescribeAlarms", both).await.0, "InvalidParameterCombinationException");
    assert_eq!(refused(&app, "DescribeAlarms", json!({"NextToken": "%"})).await.0, "InvalidNextToken");
    assert_eq!(refused(&app, "DescribeAlarmHistory", json!({"NextToken": "x"})).await.0, "InvalidNextToken");
}
