//! Event rules and schedules: what they bring to their targets, how often, and what they refuse.

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};

use crate::app::{Answer, TestApp, training_job};

const NOBODY: &str = "arn:aws:iam::123456789012:role/Nobody";

const QUEUE: &str = "arn:aws:sqs:us-east-1:123456789012:";

async fn queue(app: &TestApp, name: &str) -> String {
    let made = app.ok("AmazonSQS.CreateQueue", json!({"QueueName": name})).await;
    made["QueueUrl"].as_str().unwrap().to_owned()
}

/// The messages that are there, or the first that comes; they are deleted.
async fn received(app: &TestApp, url: &str) -> Vec<Value> {
    let input = json!({"QueueUrl": url, "WaitTimeSeconds": 20, "MaxNumberOfMessages": 10, "MessageAttributeNames": ["All"]});
    let output = app.ok("AmazonSQS.ReceiveMessage", input).await;
    let messages = output["Messages"].as_array().cloned().unwrap_or_default();
    for message in &messages {
        let input = json!({"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"]});
        app.ok("AmazonSQS.DeleteMessage", input).await;
    }
    messages
}

/// How many messages there are now, seen or not.
async fn count(app: &TestApp, url: &str) -> i64 {
    let input = json!({"QueueUrl": url, "AttributeNames": ["All"]});
    let attributes = app.ok("AmazonSQS.GetQueueAttributes", input).await["Attributes"].clone();
    let number = |name: &str| attributes[name].as_str().unwrap().parse::<i64>().unwrap();
    number("ApproximateNumberOfMessages") + number("ApproximateNumberOfMessagesNotVisible")
}

async fn rule(app: &TestApp, name: &str, pattern: Value, targets: Value) {
    app.ok("AWSEvents.PutRule", json!({"Name": name, "EventPattern": pattern.to_string()})).await;
    app.ok("AWSEvents.PutTargets", json!({"Rule": name, "Targets": targets})).await;
}

async fn schedule(app: &TestApp, method: &str, path: &str, body: Value) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(())
        .unwrap();
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    app.send_signed(request, body, "scheduler", &app.key()).await
}

fn target(queue: &str) -> Value {
    json!({"Arn": format!("{QUEUE}{queue}"), "RoleArn": "arn:aws:iam::123456789012:role/ModelyardExecutionRole"})
}

#[tokio::test]
async fn events_that_are_put_reach_the_targets_of_the_rules_that_want_them() {
    let app = TestApp::new().await;
    let (all, part) = (queue(&app, "all").await, queue(&app, "part").await);
    let transformer = json!({"InputPathsMap": {"n": "$.detail.n"}, "InputTemplate": "{\"number\": <n>}"});
    rule(
        &app,
        "wanted",
        json!({"source": ["mine"], "detail": {"n": [{"numeric": [">", 1]}]}}),
        json!([{"Id": "a", "Arn": format!("{QUEUE}all")}, {"Id": "p", "Arn": format!("{QUEUE}part"), "InputTransformer": transformer}]),
    )
    .await;
    let entry = |n: i64| json!({"Source": "mine", "DetailType": "t", "Detail": json!({"n": n}).to_string()});
    let bad = json!({"Source": "aws.sagemaker", "DetailType": "t", "Detail": "{}"});
    let put = app.ok("AWSEvents.PutEvents", json!({"Entries": [entry(1), entry(2), bad]})).await;
    assert_eq!(put["FailedEntryCount"], 1);
    assert_eq!(put["Entries"][2]["ErrorCode"], "NotAuthorizedForSourceException");
    let event: Value = serde_json::from_str(received(&app, &all).await[0]["Body"].as_str().unwrap()).unwrap();
    assert_eq!((&event["id"], &event["detail"]["n"]), (&put["Entries"][1]["EventId"], &json!(2)));
    assert_eq!(received(&app, &part).await[0]["Body"], "{\"number\": 2}");
    assert_eq!(count(&app, &all).await, 0, "nothing comes twice, and nothing else comes");

    app.ok("AWSEvents.DisableRule", json!({"Name": "wanted"})).await;
    app.ok("AWSEvents.PutEvents", json!({"Entries": [entry(3)]})).await;
    app.ok("AWSEvents.EnableRule", json!({"Name": "wanted"})).await;
    app.ok("AWSEvents.PutEvents", json!({"Entries": [entry(4)]})).await;
    assert_eq!(received(&app, &part).await[0]["Body"], "{\"number\": 4}");
}

#[tokio::test]
async fn jobs_that_change_their_state_reach_rules() {
    let app = TestApp::new().await;
    let url = queue(&app, "states").await;
    let pattern = json!({"source": ["aws.sagemaker"], "detail-type": ["SageMaker Training Job State Change"],
                         "detail": {"TrainingJobName": [{"prefix": "seen"}], "TrainingJobStatus": ["InProgress"]}});
    rule(
        &app,
        "states",
        pattern,
        json!([{"Id": "q", "Arn": format!("{QUEUE}states"), "InputPath": "$.detail.TrainingJobName"}]),
    )
    .await;
    app.ok("SageMaker.CreateTrainingJob", training_job("unseen")).await;
    app.ok("SageMaker.CreateTrainingJob", training_job("seen")).await;
    assert_eq!(received(&app, &url).await[0]["Body"], "\"seen\"");
}

#[tokio::test]
async fn what_cannot_be_brought_goes_to_the_dead_letter_queue() {
    let app = TestApp::new().await;
    let dead = queue(&app, "dead").await;
    let target = json!([{"Id": "f", "Arn": "arn:aws:lambda:us-east-1:123456789012:function:none",
                         "DeadLetterConfig": {"Arn": format!("{QUEUE}dead")}}]);
    rule(&app, "lost", json!({"source": ["mine"]}), target).await;
    let entry = json!({"Source": "mine", "DetailType": "t", "Detail": "{}"});
    app.ok("AWSEvents.PutEvents", json!({"Entries": [entry]})).await;
    let message = received(&app, &dead).await.remove(0);
    assert_eq!(message["MessageAttributes"]["ERROR_CODE"]["StringValue"], "NO_RESOURCE");
    assert_eq!(
        message["MessageAttributes"]["RULE_ARN"]["StringValue"],
        "arn:aws:events:us-east-1:123456789012:rule/lost"
    );
}

#[tokio::test]
async fn rules_are_shown_tagged_and_deleted_and_say_what_is_wrong() {
    let app = TestApp::new().await;
    queue(&app, "q").await;
    let put = json!({"Name": "nightly", "ScheduleExpression": "cron(0 2 * * ? *)", "Description": "d", "State": "DISABLED",
                     "Tags": [{"Key": "a", "Value": "b"}]});
    let arn = app.ok("AWSEvents.PutRule", put).await["RuleArn"].clone();
    let target = json!([{"Id": "q", "Arn": format!("{QUEUE}q"), "Input": "{}"}]);
    app.ok("AWSEvents.PutTargets", json!({"Rule": "nightly", "Targets": target})).await;
    let shown = app.ok("AWSEvents.DescribeRule", json!({"Name": "nightly"})).await;
    assert_eq!(
        (&shown["State"], &shown["ScheduleExpression"]),
        (&json!("DISABLED"), &json!("cron(0 2 * * ? *)"))
    );
    assert_eq!(app.ok("AWSEvents.ListRules", json!({"NamePrefix": "night"})).await["Rules"][0]["Arn"], arn);
    assert_eq!(app.ok("AWSEvents.ListTargetsByRule", json!({"Rule": "nightly"})).await["Targets"], target);
    let names = app.ok("AWSEvents.ListRuleNamesByTarget", json!({"TargetArn": format!("{QUEUE}q")})).await;
    assert_eq!(names["RuleNames"], json!(["nightly"]));
    app.ok("AWSEvents.TagResource", json!({"ResourceARN": arn, "Tags": [{"Key": "c", "Value": "d"}]})).await;
    app.ok("AWSEvents.UntagResource", json!({"ResourceARN": arn, "TagKeys": ["a"]})).await;
    let tags = app.ok("AWSEvents.ListTagsForResource", json!({"ResourceARN": arn})).await["Tags"].clone();
    assert_eq!(tags, json!([{"Key": "c", "Value": "d"}]));
    let (code, _) = app.refused("AWSEvents.DeleteRule", json!({"Name": "nightly"})).await;
    assert_eq!(code, "ValidationException", "it has targets");
    app.ok("AWSEvents.RemoveTargets", json!({"Rule": "nightly", "Ids": ["q"]})).await;
    app.ok("AWSEvents.DeleteRule", json!({"Name": "nightly"})).await;
    assert_eq!(
        app.refused("AWSEvents.DescribeRule", json!({"Name": "nightly"})).await.0,
        "ResourceNotFoundException"
    );

    let refused = |pattern: &str| json!({"Name": "r", "EventPattern": pattern});
    assert_eq!(app.refused("AWSEvents.PutRule", refused("{}")).await.0, "InvalidEventPatternException");
    let (_, text) = app
        .refused("AWSEvents.PutRule", json!({"Name": "r", "ScheduleExpression": "cron(0 2 * * * *)"}))
        .await;
    assert!(text.contains("must be '?'"), "{text}");
    app.ok("AWSEvents.PutRule", refused("{\"source\": [\"x\"]}")).await;
    let topic =
        json!({"Rule": "r", "Targets": [{"Id": "t", "Arn": "arn:aws:sns:us-east-1:123456789012:topic"}]});
    let (_, text) = app.refused("AWSEvents.PutTargets", topic).await;
    assert!(text.contains("targets of sns are not done"), "{text}");
    let no_role =
        |role: &str| format!("Provided role '{role}' cannot be assumed by principal 'events.amazonaws.com'.");
    for role in [NOBODY, "ModelyardExecutionRole"] {
        let target = json!([{"Id": "q", "Arn": format!("{QUEUE}q"), "RoleArn": role}]);
        let refused = app.refused("AWSEvents.PutTargets", json!({"Rule": "r", "Targets": target})).await;
        assert_eq!(refused, ("ValidationException".to_owned(), no_role(role)));
    }
    let refused = json!({"Name": "r", "EventPattern": "{\"source\": [\"x\"]}", "RoleArn": NOBODY});
    assert_eq!(app.refused("AWSEvents.PutRule", refused).await.1, no_role(NOBODY));
    let event = json!({"id": "1", "account": "1", "source": "x", "time": "t", "region": "r", "resources": [], "detail-type": "d"});
    let test = json!({"EventPattern": "{\"source\": [\"x\"]}", "Event": event.to_string()});
    assert_eq!(app.ok("AWSEvents.TestEventPattern", test).await["Result"], true);
}

#[tokio::test]
async fn a_schedule_fires_once_per_tick_and_once_for_all_that_were_missed() {
    let app = TestApp::new().await;
    let (ticks, rules) = (queue(&app, "ticks").await, queue(&app, "rules").await);
    let mut to = target("ticks");
    to["Input"] = "{\"at\": \"<aws.scheduler.scheduled-time>\"}".into();
    let body =
        json!({"ScheduleExpression": "rate(5 minutes)", "FlexibleTimeWindow": {"Mode": "OFF"}, "Target": to});
    let answer = schedule(&app, "POST", "/schedules/often", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    app.ok("AWSEvents.PutRule", json!({"Name": "often", "ScheduleExpression": "rate(5 minutes)"})).await;
    app.ok(
        "AWSEvents.PutTargets",
        json!({"Rule": "often", "Targets": [{"Id": "q", "Arn": format!("{QUEUE}rules")}]}),
    )
    .await;
    app.clock.advance(5 * 60_000);
    // The clock of the tests begins at 2026-02-02T02:40:00Z.
    assert_eq!(received(&app, &ticks).await[0]["Body"], "{\"at\": \"2026-02-02T02:45:00Z\"}");
    let event: Value =
        serde_json::from_str(received(&app, &rules).await[0]["Body"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&event["detail-type"], &event["time"]),
        (&json!("Scheduled Event"), &json!("2026-02-02T02:45:00Z"))
    );
    app.clock.advance(21 * 60_000);
    assert_eq!(received(&app, &ticks).await[0]["Body"], "{\"at\": \"2026-02-02T02:50:00Z\"}");
    app.clock.advance(4 * 60_000);
    assert_eq!(
        received(&app, &ticks).await[0]["Body"],
        "{\"at\": \"2026-02-02T03:10:00Z\"}",
        "it goes on in step"
    );
    assert_eq!(count(&app, &ticks).await, 0, "each tick came once");
}

#[tokio::test]
async fn a_schedule_of_one_time_calls_an_operation_and_goes() {
    let app = TestApp::new().await;
    let body = json!({
        "ScheduleExpression": "at(2026-02-02T03:45:00)",
        "ScheduleExpressionTimezone": "Europe/Berlin",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "ActionAfterCompletion": "DELETE",
        "Target": {
            "Arn": "arn:aws:scheduler:::aws-sdk:sqs:createQueue",
            "RoleArn": "arn:aws:iam::123456789012:role/ModelyardExecutionRole",
            "Input": "{\"QueueName\": \"made-in-time\"}",
        },
    });
    assert_eq!(schedule(&app, "POST", "/schedules/once", body.clone()).await.status, 200);
    let again = schedule(&app, "POST", "/schedules/once", body).await;
    assert_eq!(
        (again.status.as_u16(), again.headers["x-amzn-errortype"].to_str().unwrap()),
        (409, "ConflictException")
    );
    app.clock.advance(5 * 60_000);
    app.until("the queue is made", || async {
        let answer = app.call("AmazonSQS.GetQueueUrl", json!({"QueueName": "made-in-time"})).await;
        (answer.status == 200).then_some(())
    })
    .await;
    assert_eq!(schedule(&app, "GET", "/schedules/once", Value::Null).await.status, 404);
}

#[tokio::test]
async fn schedules_that_cannot_be_are_refused_by_name() {
    let app = TestApp::new().await;
    let refused = async |change: fn(&mut Value), word: &str| {
        let mut body = json!({"ScheduleExpression": "rate(1 hour)", "FlexibleTimeWindow": {"Mode": "OFF"}, "Target": target("q")});
        change(&mut body);
        let answer = schedule(&app, "POST", "/schedules/s", body).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(answer.text().contains(word), "{word}: {}", answer.text());
    };
    refused(|body| body["ScheduleExpression"] = "rate(1 week)".into(), "minutes, hours or days").await;
    refused(|body| body["ScheduleExpressionTimezone"] = "Mars/Olympus".into(), "time zone").await;
    refused(|body| body["FlexibleTimeWindow"]["Mode"] = "FLEXIBLE".into(), "MaximumWindowInMinutes").await;
    refused(
        |body| body["Target"]["Arn"] = "arn:aws:scheduler:::aws-sdk:ec2:runInstances".into(),
        "no operation",
    )
    .await;
    refused(
        |body| body["Target"]["Arn"] = "arn:aws:sqs:us-east-1:210987654321:theirs".into(),
        "not authorized",
    )
    .await;
    let no_role = "must allow AWS EventBridge Scheduler to assume the role";
    refused(|body| body["Target"]["RoleArn"] = NOBODY.into(), no_role).await;
    refused(|body| body["Target"]["RoleArn"] = "ModelyardExecutionRole".into(), "oleArn").await;
    refused(|body| body["KmsKeyArn"] = "arn:aws:kms:us-east-1:123456789012:key/k".into(), "KmsKeyArn").await;
    let group = schedule(&app, "GET", "/schedules/s?groupName=none", Value::Null).await;
    assert_eq!(group.status, 404);
}
