//! Topics: what is told to one comes to its queues and functions, and what cannot be brought is refused.

use serde_json::{Value, json};

use crate::app::{Answer, TestApp, element};

const TOPIC: &str = "arn:aws:sns:us-east-1:123456789012:news";
const QUEUE: &str = "arn:aws:sqs:us-east-1:123456789012:";

async fn sns(app: &TestApp, form: &str) -> Answer {
    app.form("sns", &format!("Version=2010-03-31&Action={form}"), &app.key()).await
}

async fn ok(app: &TestApp, form: &str) -> String {
    let answer = sns(app, form).await;
    assert_eq!(answer.status, 200, "{form}: {}", answer.text());
    answer.text()
}

async fn refused(app: &TestApp, form: &str) -> (u16, String, String) {
    let answer = sns(app, form).await;
    let text = answer.text();
    assert!(answer.status.is_client_error(), "{form}: {text}");
    (answer.status.as_u16(), element(&text, "Code"), element(&text, "Message"))
}

async fn queue(app: &TestApp, name: &str) -> Value {
    app.ok("AmazonSQS.CreateQueue", json!({"QueueName": name})).await["QueueUrl"].clone()
}

/// The next message of a queue.
async fn received(app: &TestApp, url: &Value) -> Value {
    let input = json!({"QueueUrl": url, "WaitTimeSeconds": 20, "MessageAttributeNames": ["All"]});
    app.ok("AmazonSQS.ReceiveMessage", input).await["Messages"][0].take()
}

async fn subscribe(app: &TestApp, queue: &str, more: &str) -> String {
    let form = format!("Subscribe&TopicArn={TOPIC}&Protocol=sqs&Endpoint={QUEUE}{queue}{more}");
    element(&ok(app, &form).await, "SubscriptionArn")
}

#[tokio::test]
async fn a_message_comes_to_each_queue_in_its_form() {
    let app = TestApp::new().await;
    let (plain, raw) = (queue(&app, "plain").await, queue(&app, "raw").await);
    assert_eq!(element(&ok(&app, "CreateTopic&Name=news").await, "TopicArn"), TOPIC);
    assert_eq!(element(&ok(&app, "CreateTopic&Name=news").await, "TopicArn"), TOPIC, "it is there");
    let first = subscribe(&app, "plain", "").await;
    assert!(first.starts_with(&format!("{TOPIC}:")), "{first}");
    assert_eq!(subscribe(&app, "plain", "").await, first, "a queue is subscribed once");
    let second = subscribe(&app, "raw", "").await;
    let set = format!(
        "SetSubscriptionAttributes&SubscriptionArn={second}&AttributeName=RawMessageDelivery&AttributeValue=true"
    );
    ok(&app, &set).await;
    let shown = ok(&app, &format!("GetSubscriptionAttributes&SubscriptionArn={second}")).await;
    assert!(shown.contains("<key>RawMessageDelivery</key><value>true</value>"), "{shown}");

    let attribute = "&MessageAttributes.entry.1.Name=kind&MessageAttributes.entry.1.Value.DataType=String\
                     &MessageAttributes.entry.1.Value.StringValue=good";
    let published =
        ok(&app, &format!("Publish&TopicArn={TOPIC}&Subject=Today&Message=hello{attribute}")).await;
    let message = received(&app, &plain).await;
    let envelope: Value = serde_json::from_str(message["Body"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&envelope["Type"], &envelope["Subject"], &envelope["Message"], &envelope["TopicArn"]),
        (&json!("Notification"), &json!("Today"), &json!("hello"), &json!(TOPIC))
    );
    assert_eq!(envelope["MessageId"], element(&published, "MessageId"));
    assert_eq!(envelope["MessageAttributes"]["kind"], json!({"Type": "String", "Value": "good"}));
    let message = received(&app, &raw).await;
    assert_eq!(message["Body"], "hello");
    assert_eq!(message["MessageAttributes"]["kind"]["StringValue"], "good");

    let listed = ok(&app, &format!("ListSubscriptionsByTopic&TopicArn={TOPIC}")).await;
    assert_eq!(listed.matches("<Protocol>sqs</Protocol>").count(), 2);
    let shown = ok(&app, &format!("GetTopicAttributes&TopicArn={TOPIC}")).await;
    assert!(shown.contains("<key>SubscriptionsConfirmed</key><value>2</value>"), "{shown}");
    ok(&app, &format!("Unsubscribe&SubscriptionArn={first}")).await;
    let listed = ok(&app, "ListSubscriptions").await;
    assert!(listed.contains(&second) && !listed.contains(&first), "{listed}");
    ok(&app, &format!("DeleteTopic&TopicArn={TOPIC}")).await;
    ok(&app, &format!("DeleteTopic&TopicArn={TOPIC}")).await;
    assert!(!ok(&app, "ListTopics").await.contains(TOPIC));
    assert!(!ok(&app, "ListSubscriptions").await.contains(&second), "they go with their topic");
}

#[tokio::test]
async fn what_a_topic_cannot_do_is_refused() {
    let app = TestApp::new().await;
    ok(&app, "CreateTopic&Name=news").await;
    let (status, code, _) =
        refused(&app, "Publish&TopicArn=arn:aws:sns:us-east-1:123456789012:none&Message=x").await;
    assert_eq!((status, code.as_str()), (404, "NotFound"));
    let (status, code, _) =
        refused(&app, "Publish&TopicArn=arn:aws:sns:us-east-1:999999999999:news&Message=x").await;
    assert_eq!((status, code.as_str()), (403, "AuthorizationError"));
    for (form, word) in [
        ("CreateTopic&Name=a%20b".to_owned(), "Topic Name"),
        ("CreateTopic&Name=a.fifo".to_owned(), "first-in-first-out"),
        ("CreateTopic&Name=b&Attributes.entry.1.key=Policy&Attributes.entry.1.value=x".to_owned(), "Policy"),
        (format!("Subscribe&TopicArn={TOPIC}&Protocol=https&Endpoint=https://example.com"), "sqs"),
        (format!("Subscribe&TopicArn={TOPIC}&Protocol=email&Endpoint=me@example.com"), "sqs"),
        (format!("Subscribe&TopicArn={TOPIC}&Protocol=sqs&Endpoint=news"), "ARN of a queue"),
        (format!("Subscribe&TopicArn={TOPIC}&Protocol=sqs&Endpoint={QUEUE}q.fifo"), "first-in-first-out"),
        (format!("Publish&TopicArn={TOPIC}&Message=x&MessageStructure=json"), "MessageStructure"),
        ("Publish&PhoneNumber=1&Message=x".to_owned(), "PhoneNumber"),
        (format!("Publish&TopicArn={TOPIC}&Message=x&Subject=%20x"), "Subject"),
    ] {
        let (status, code, message) = refused(&app, &form).await;
        assert_eq!((status, code.as_str()), (400, "InvalidParameter"), "{form}: {message}");
        assert!(message.contains(word), "{form}: {message}");
    }
    let foreign =
        format!("Subscribe&TopicArn={TOPIC}&Protocol=sqs&Endpoint=arn:aws:sqs:us-east-1:999999999999:q");
    assert_eq!(refused(&app, &foreign).await.1, "AuthorizationError");
}
