//! Queues: messages come once to one receiver, in order where asked, and stay until they are deleted.

use serde_json::{Value, json};

use crate::app::TestApp;

async fn queue(app: &TestApp, name: &str, attributes: Value) -> String {
    let made = app.ok("AmazonSQS.CreateQueue", json!({"QueueName": name, "Attributes": attributes})).await;
    made["QueueUrl"].as_str().unwrap().to_owned()
}

async fn send(app: &TestApp, url: &str, body: &str) -> Value {
    app.ok("AmazonSQS.SendMessage", json!({"QueueUrl": url, "MessageBody": body})).await
}

async fn send_in(app: &TestApp, url: &str, group: &str, body: &str) -> Value {
    let message = json!({"QueueUrl": url, "MessageBody": body, "MessageGroupId": group, "MessageDeduplicationId": body});
    app.ok("AmazonSQS.SendMessage", message).await
}

async fn receive(app: &TestApp, url: &str, most: usize) -> Vec<Value> {
    let input = json!({"QueueUrl": url, "MaxNumberOfMessages": most, "MessageSystemAttributeNames": ["All"],
                       "MessageAttributeNames": ["All"]});
    let output = app.ok("AmazonSQS.ReceiveMessage", input).await;
    output["Messages"].as_array().cloned().unwrap_or_default()
}

fn bodies(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["Body"].as_str().unwrap()).collect()
}

async fn delete(app: &TestApp, url: &str, message: &Value) {
    let input = json!({"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"]});
    app.ok("AmazonSQS.DeleteMessage", input).await;
}

#[tokio::test]
async fn a_message_is_hidden_while_it_is_held_and_gone_when_deleted() {
    let app = TestApp::new().await;
    let url = queue(&app, "jobs", json!({"VisibilityTimeout": "30"})).await;
    assert!(url.ends_with("/123456789012/jobs"), "{url}");
    let sent = send(&app, &url, "Information about the largest city in Any Region.").await;
    assert_eq!(sent["MD5OfMessageBody"], "51b0a3256d59467f973009b739163aa0");
    let first = receive(&app, &url, 10).await;
    assert_eq!(first.len(), 1);
    assert_eq!(first[0]["MessageId"], sent["MessageId"]);
    assert_eq!(first[0]["Attributes"]["ApproximateReceiveCount"], "1");
    assert!(receive(&app, &url, 10).await.is_empty(), "it is in flight");
    let counts =
        app.ok("AmazonSQS.GetQueueAttributes", json!({"QueueUrl": url, "AttributeNames": ["All"]})).await;
    assert_eq!(counts["Attributes"]["ApproximateNumberOfMessagesNotVisible"], "1");
    assert_eq!(counts["Attributes"]["ApproximateNumberOfMessages"], "0");

    app.clock.advance(30_000);
    let second = receive(&app, &url, 10).await;
    assert_eq!(second[0]["Attributes"]["ApproximateReceiveCount"], "2");
    delete(&app, &url, &first[0]).await;
    app.clock.advance(30_000);
    let third = receive(&app, &url, 10).await;
    assert_eq!(third.len(), 1, "an old receipt deletes nothing");
    delete(&app, &url, &third[0]).await;
    app.clock.advance(30_000);
    assert!(receive(&app, &url, 10).await.is_empty());
}

#[tokio::test]
async fn visibility_can_be_changed_while_a_message_is_held() {
    let app = TestApp::new().await;
    let url = queue(&app, "jobs", json!({})).await;
    send(&app, &url, "one").await;
    let held = receive(&app, &url, 1).await.remove(0);
    let change = |seconds: i64| json!({"QueueUrl": url, "ReceiptHandle": held["ReceiptHandle"], "VisibilityTimeout": seconds});
    app.ok("AmazonSQS.ChangeMessageVisibility", change(0)).await;
    let (code, _) = app.refused("AmazonSQS.ChangeMessageVisibility", change(10)).await;
    assert_eq!(code, "MessageNotInflight");
    assert_eq!(bodies(&receive(&app, &url, 1).await), ["one"]);
    let (code, text) = app.refused("AmazonSQS.ChangeMessageVisibility", change(43_201)).await;
    assert_eq!(code, "InvalidParameterValue", "{text}");
    let batch = json!({"QueueUrl": url, "Entries": [{"Id": "a", "ReceiptHandle": "nonsense", "VisibilityTimeout": 1}]});
    let answer = app.ok("AmazonSQS.ChangeMessageVisibilityBatch", batch).await;
    assert_eq!(answer["Failed"][0]["Code"], "ReceiptHandleIsInvalid");
}

#[tokio::test]
async fn a_waiting_receiver_gets_what_is_sent_meanwhile() {
    let app = TestApp::new().await;
    let url = queue(&app, "jobs", json!({"ReceiveMessageWaitTimeSeconds": "20"})).await;
    let started = std::time::Instant::now();
    let (messages, _) = tokio::join!(receive(&app, &url, 1), async {
        tokio::task::yield_now().await;
        send(&app, &url, "late").await
    });
    assert_eq!(bodies(&messages), ["late"]);
    assert!(
        started.elapsed() < std::time::Duration::from_secs(15),
        "the bell, not the end of the wait, wakes it"
    );
}

#[tokio::test]
async fn groups_keep_their_order_and_duplicates_are_dropped() {
    let app = TestApp::new().await;
    let url = queue(&app, "jobs.fifo", json!({"FifoQueue": "true"})).await;
    let first = send_in(&app, &url, "a", "a1").await;
    send_in(&app, &url, "a", "a2").await;
    send_in(&app, &url, "b", "b1").await;
    let again = send_in(&app, &url, "a", "a1").await;
    assert_eq!(
        (&again["MessageId"], &again["SequenceNumber"]),
        (&first["MessageId"], &first["SequenceNumber"])
    );
    let one = receive(&app, &url, 1).await;
    assert_eq!(bodies(&one), ["a1"]);
    let other = receive(&app, &url, 10).await;
    assert_eq!(bodies(&other), ["b1"], "the rest of group a waits for a1");
    delete(&app, &url, &one[0]).await;
    assert_eq!(bodies(&receive(&app, &url, 10).await), ["a2"]);
    app.clock.advance(5 * 60_000);
    let (code, _) = app
        .refused(
            "AmazonSQS.DeleteMessage",
            json!({"QueueUrl": url, "ReceiptHandle": other[0]["ReceiptHandle"]}),
        )
        .await;
    assert_eq!(code, "InvalidParameterValue", "its time is over, somebody else may have it");
    let anew = send_in(&app, &url, "a", "a1").await;
    assert_ne!(anew["MessageId"], first["MessageId"], "after five minutes it is another message");
    let (code, _) = app.refused("AmazonSQS.SendMessage", json!({"QueueUrl": url, "MessageBody": "x"})).await;
    assert_eq!(code, "MissingParameter");
}

#[tokio::test]
async fn messages_received_too_often_go_to_the_dead_letter_queue() {
    let app = TestApp::new().await;
    let dead = queue(&app, "dead", json!({})).await;
    let policy =
        json!({"deadLetterTargetArn": "arn:aws:sqs:us-east-1:123456789012:dead", "maxReceiveCount": 2})
            .to_string();
    let url = queue(&app, "jobs", json!({"RedrivePolicy": policy, "VisibilityTimeout": "0"})).await;
    send(&app, &url, "poison").await;
    for _ in 0..2 {
        assert_eq!(receive(&app, &url, 1).await.len(), 1);
    }
    assert!(receive(&app, &url, 1).await.is_empty());
    let moved = receive(&app, &dead, 1).await;
    assert_eq!(bodies(&moved), ["poison"]);
    assert_eq!(moved[0]["Attributes"]["DeadLetterQueueSourceArn"], "arn:aws:sqs:us-east-1:123456789012:jobs");
    let sources = app.ok("AmazonSQS.ListDeadLetterSourceQueues", json!({"QueueUrl": dead})).await;
    assert_eq!(sources["queueUrls"], json!([url]));
    let nowhere =
        json!({"deadLetterTargetArn": "arn:aws:sqs:us-east-1:123456789012:nowhere", "maxReceiveCount": 2});
    let input = json!({"QueueUrl": url, "Attributes": {"RedrivePolicy": nowhere.to_string()}});
    let (code, text) = app.refused("AmazonSQS.SetQueueAttributes", input).await;
    assert_eq!(code, "InvalidParameterValue", "{text}");
}

#[tokio::test]
async fn batches_tell_of_each_entry_and_attributes_come_along() {
    let app = TestApp::new().await;
    let url = queue(&app, "jobs", json!({"MaximumMessageSize": "1024", "DelaySeconds": "5"})).await;
    let attributes = json!({
        "city": {"DataType": "String", "StringValue": "Any City"},
        "population": {"DataType": "Number.int", "StringValue": "1250800"},
        "seal": {"DataType": "Binary", "BinaryValue": "AP8Q"},
    });
    let entries = json!([
        {"Id": "now", "MessageBody": "now", "DelaySeconds": 0, "MessageAttributes": attributes},
        {"Id": "later", "MessageBody": "later"},
        {"Id": "long", "MessageBody": "x".repeat(1025)},
    ]);
    let answer = app.ok("AmazonSQS.SendMessageBatch", json!({"QueueUrl": url, "Entries": entries})).await;
    assert_eq!(answer["Successful"][0]["MD5OfMessageAttributes"], "c912338efd765f0c70594d0563793a93");
    assert_eq!(answer["Failed"][0]["Id"], "long");
    let now = receive(&app, &url, 10).await;
    assert_eq!(bodies(&now), ["now"]);
    assert_eq!(now[0]["MessageAttributes"], attributes);
    assert_eq!(now[0]["MD5OfMessageAttributes"], "c912338efd765f0c70594d0563793a93");
    app.clock.advance(5_000);
    assert_eq!(bodies(&receive(&app, &url, 10).await), ["later"]);
    let deleted =
        json!({"QueueUrl": url, "Entries": [{"Id": "1", "ReceiptHandle": now[0]["ReceiptHandle"]}]});
    assert_eq!(app.ok("AmazonSQS.DeleteMessageBatch", deleted).await["Successful"][0]["Id"], "1");
    let twice = json!([{"Id": "1", "MessageBody": "a"}, {"Id": "1", "MessageBody": "b"}]);
    let (code, _) =
        app.refused("AmazonSQS.SendMessageBatch", json!({"QueueUrl": url, "Entries": twice})).await;
    assert_eq!(code, "BatchEntryIdsNotDistinct");
    let (code, _) = app.refused("AmazonSQS.SendMessageBatch", json!({"QueueUrl": url, "Entries": []})).await;
    assert_eq!(code, "EmptyBatchRequest");
}

#[tokio::test]
async fn queues_are_listed_tagged_emptied_and_forgotten() {
    let app = TestApp::new().await;
    let url = queue(&app, "jobs-a", json!({"MessageRetentionPeriod": "60"})).await;
    assert_eq!(queue(&app, "jobs-a", json!({"MessageRetentionPeriod": "60"})).await, url, "the same again");
    let other = json!({"QueueName": "jobs-a", "Attributes": {"MessageRetentionPeriod": "61"}});
    assert_eq!(app.refused("AmazonSQS.CreateQueue", other).await.0, "QueueNameExists");
    queue(&app, "jobs-b", json!({})).await;
    let page = app.ok("AmazonSQS.ListQueues", json!({"QueueNamePrefix": "jobs", "MaxResults": 1})).await;
    assert_eq!(page["QueueUrls"], json!([url]));
    let next = json!({"QueueNamePrefix": "jobs", "MaxResults": 1, "NextToken": page["NextToken"]});
    assert!(app.ok("AmazonSQS.ListQueues", next).await["QueueUrls"][0].as_str().unwrap().ends_with("jobs-b"));

    app.ok("AmazonSQS.TagQueue", json!({"QueueUrl": url, "Tags": {"team": "a", "cost": "b"}})).await;
    app.ok("AmazonSQS.UntagQueue", json!({"QueueUrl": url, "TagKeys": ["cost"]})).await;
    assert_eq!(
        app.ok("AmazonSQS.ListQueueTags", json!({"QueueUrl": url})).await["Tags"],
        json!({"team": "a"})
    );

    send(&app, &url, "old").await;
    app.clock.advance(60_000);
    assert!(receive(&app, &url, 1).await.is_empty(), "messages are kept for a minute here");
    send(&app, &url, "new").await;
    app.ok("AmazonSQS.PurgeQueue", json!({"QueueUrl": url})).await;
    assert!(receive(&app, &url, 1).await.is_empty());
    assert_eq!(app.refused("AmazonSQS.PurgeQueue", json!({"QueueUrl": url})).await.0, "PurgeQueueInProgress");
    app.ok("AmazonSQS.DeleteQueue", json!({"QueueUrl": url})).await;
    let (code, _) = app.refused("AmazonSQS.GetQueueUrl", json!({"QueueName": "jobs-a"})).await;
    assert_eq!(code, "QueueDoesNotExist");
}

#[tokio::test]
async fn accounts_have_queues_of_their_own() {
    let app = TestApp::new().await;
    let url = queue(&app, "jobs", json!({})).await;
    let other = app.other_account("210987654321").await;
    let (code, _) = app
        .refused_as("AmazonSQS.SendMessage", json!({"QueueUrl": url, "MessageBody": "theirs"}), &other)
        .await;
    assert_eq!(code, "AccessDenied");
    let (code, _) = app.refused_as("AmazonSQS.GetQueueUrl", json!({"QueueName": "jobs"}), &other).await;
    assert_eq!(code, "QueueDoesNotExist");
    let answer = app.call("AmazonSQS.GetQueueUrl", json!({"QueueName": "none"})).await;
    assert_eq!(answer.headers["x-amzn-errortype"], "QueueDoesNotExist");
}

#[tokio::test]
async fn so_many_messages_are_in_flight_and_no_more() {
    const MOST: usize = 120_000;
    let app = TestApp::new().await;
    let url = queue(&app, "full", json!({})).await;
    let now_ms = app.clock.now_ms();
    let filled = app.app.database.write(move |session| {
        let queue = session.queue("123456789012", "us-east-1", "full")?.expect("it was made");
        let message =
            store::queues::NewMessage { body: "b".into(), attributes: "{}".into(), ..Default::default() };
        for _ in 0..=MOST {
            session.send_message(&queue, &message, now_ms)?;
        }
        session.receive_messages(&queue, MOST - 1, 3600, now_ms)
    });
    assert_eq!(filled.await.unwrap().len(), MOST - 1);
    let [last] = &receive(&app, &url, 1).await[..] else { panic!("there is room for one") };
    let (code, text) = app.refused("AmazonSQS.ReceiveMessage", json!({"QueueUrl": url})).await;
    assert!(code.ends_with("OverLimit") && text.contains("120000 messages"), "{code} {text}");
    let waiting = app.ok("AmazonSQS.ReceiveMessage", json!({"QueueUrl": url, "WaitTimeSeconds": 1})).await;
    assert!(waiting["Messages"].is_null(), "{waiting}");
    delete(&app, &url, last).await;
    assert_eq!(receive(&app, &url, 1).await.len(), 1);
    app.clock.advance(3_600_000);
    assert_eq!(receive(&app, &url, 10).await.len(), 10, "who was in flight is no more");
}
