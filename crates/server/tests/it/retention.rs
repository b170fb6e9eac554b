//! What is old goes, a bounded step at a time; what is used or young stays.

use serde_json::{Value, json};
use server::events::TRAINING_JOB_STATE;
use server::training::record::{HostRecord, TrainingRecord};
use store::pipelines::{PipelineResult, PipelineStep};
use store::resources::{Resource, ResourceKey};
use store::warm_pools::WarmPool;

use crate::app::TestApp;

const ACCOUNT: &str = "123456789012";
const DAY_MS: i64 = 86_400_000;
const GROUP: &str = "/aws/sagemaker/TrainingJobs";

/// Most things that a step removes.
const MOST_AT_ONCE: u64 = 1_000;

fn key(kind: &str, name: &str) -> ResourceKey {
    ResourceKey::new(ACCOUNT, "us-east-1", kind, name)
}

fn resource(kind: &str, name: &str, status: &str, at: i64) -> Resource {
    Resource {
        key: key(kind, name),
        arn: format!("arn:aws:sagemaker:us-east-1:{ACCOUNT}:{kind}/{name}"),
        status: status.into(),
        spec: json!({"filler": "x".repeat(100)}),
        document: json!({}),
        generation: 1,
        created_at: at,
        modified_at: at,
    }
}

async fn retaining(table: &str) -> TestApp {
    let retention = toml::from_str(table).unwrap();
    TestApp::with(|config| config.retention = retention).await
}

/// Goes through all steps of a kind; items, bytes, and number of steps.
async fn clean(app: &TestApp, kind: &str, more: Value) -> (u64, u64, u64) {
    let mut input = json!({"Kind": kind});
    input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let (mut items, mut bytes, mut steps) = (0, 0, 0);
    loop {
        let step = app.ok("Modelyard.Clean", input.clone()).await;
        assert!(step["Items"].as_u64().unwrap() <= MOST_AT_ONCE, "{kind}: a step is bounded: {step}");
        items += step["Items"].as_u64().unwrap();
        bytes += step["Bytes"].as_u64().unwrap();
        steps += 1;
        match &step["After"] {
            Value::Null => return (items, bytes, steps),
            after => input["After"] = after.clone(),
        }
    }
}

async fn names(app: &TestApp, kind: &'static str) -> Vec<String> {
    let found = app.app.database.read(move |session| session.all_resources(kind)).await.unwrap();
    found.into_iter().map(|one| one.key.name).collect()
}

#[tokio::test]
async fn thousands_of_ended_jobs_go_and_those_in_use_stay() {
    let app = retaining("jobs_days = 30").await;
    let now_ms = app.clock.now_ms();
    let insert = app.app.database.write(move |session| {
        for number in 0..2_500 {
            let old = resource("training-job", &format!("old-{number}"), "Completed", now_ms + number % 7);
            session.insert_resource(&old)?;
            session.put_tags(&old.arn, &[("k".into(), "v".into())])?;
        }
        for kind in ["processing-job", "transform-job"] {
            for (number, status) in ["Failed", "Stopped", "InProgress"].into_iter().enumerate() {
                session.insert_resource(&resource(kind, &format!("{status}-{number}"), status, now_ms))?;
            }
        }
        let warm = resource("training-job", "warm", "Completed", now_ms);
        session.insert_resource(&warm)?;
        let mut pool = WarmPool::in_use(warm.key, "same".into());
        pool.keep(40 * 86_400, now_ms);
        session.put_warm_pool(&pool)?;
        session.insert_resource(&resource("training-job", "young", "Completed", now_ms + 20 * DAY_MS))
    });
    insert.await.unwrap();
    assert_eq!(clean(&app, "jobs", json!({})).await.0, 0, "nothing is old yet");

    app.clock.advance(31 * DAY_MS);
    let told = clean(&app, "jobs", json!({"DryRun": true})).await;
    assert_eq!(told.0, 2_504);
    assert!(told.1 > 250_000 && told.2 > 12, "{told:?}");
    assert_eq!(names(&app, "training-job").await.len(), 2_502, "a dry run removes nothing");
    assert_eq!(clean(&app, "jobs", json!({})).await, told);
    assert_eq!(names(&app, "training-job").await, ["warm", "young"]);
    assert_eq!(names(&app, "processing-job").await, ["InProgress-2"]);
    assert_eq!(names(&app, "transform-job").await, ["InProgress-2"]);
    let tags = app
        .app
        .database
        .read(|session| session.tags("arn:aws:sagemaker:us-east-1:123456789012:training-job/old-7"));
    assert!(tags.await.unwrap().is_empty());
    assert_eq!(clean(&app, "jobs", json!({})).await.0, 0);
    assert_eq!(
        clean(&app, "jobs", json!({"Days": 1, "DryRun": true})).await.0,
        1,
        "the young one is 11 days old"
    );
}

#[tokio::test]
async fn executions_go_but_for_the_last_one_and_those_whose_results_may_be_reused() {
    let app = retaining("executions_days = 7").await;
    let now_ms = app.clock.now_ms();
    let insert = app.app.database.write(move |session| {
        let pipeline = key("pipeline", "P");
        for number in 0..1_200_i64 {
            let (name, at) = (format!("e{number:04}"), now_ms + number);
            let status = if number == 5 { "Executing" } else { "Succeeded" };
            let execution = resource("pipeline-execution", &name, status, at);
            session.insert_resource(&execution)?;
            session.add_pipeline_execution(&execution.key, "P", 1, at)?;
            let step = |name: &str| PipelineStep { name: name.into(), started_at: at, document: json!({}) };
            session.put_pipeline_step(&execution.key, &step("Train"))?;
            session.put_pipeline_callback(&name, &execution.key, "Train")?;
            session.put_pipeline_request(
                &execution.key,
                "StartPipelineExecution",
                &name,
                "P",
                &execution.arn,
            )?;
            let result = |fingerprint: &str| PipelineResult {
                execution: name.clone(),
                fingerprint: fingerprint.into(),
                facts: json!({}),
                ended_at: at,
            };
            session.put_pipeline_result(&pipeline, "Train", &result("same"))?;
            if number == 3 {
                session.put_pipeline_step(&execution.key, &step("Rare"))?;
                session.put_pipeline_result(&pipeline, "Rare", &result("rare"))?;
            }
        }
        Ok(())
    });
    insert.await.unwrap();
    app.clock.advance(8 * DAY_MS);
    assert_eq!(clean(&app, "executions", json!({"DryRun": true})).await.0, 1_197);
    assert_eq!(clean(&app, "executions", json!({})).await.0, 1_197);
    assert_eq!(names(&app, "pipeline-execution").await, ["e0003", "e0005", "e1199"]);
    let left = app.app.database.read(|session| {
        let gone = key("pipeline-execution", "e0004");
        let steps = session.pipeline_steps(&gone)?.len();
        let request = session.pipeline_request(&gone, "StartPipelineExecution", "e0004")?;
        let (newest, same) = session.pipeline_results(&key("pipeline", "P"), "Rare", "rare")?;
        Ok((steps, session.pipeline_callback("e0004")?, request, newest.is_some() && same.is_some()))
    });
    assert_eq!(left.await.unwrap(), (0, None, None, true));
}

#[tokio::test]
async fn the_event_log_keeps_its_end_and_what_its_readers_have_not_seen() {
    let app = retaining("events_days = 7").await;
    let now_ms = app.clock.now_ms();
    let (first, last) = app
        .app
        .database
        .write(move |session| {
            let first = session.last_event()?;
            for number in 0..3_000 {
                let (key, what) = (key("training-job", "j"), TRAINING_JOB_STATE);
                session.append_event(&key, what, &json!({"n": number}), now_ms)?;
            }
            let last = session.last_event()?;
            // A reader that is behind.
            session.set_event_cursor("test", last - 100)?;
            Ok((first, last))
        })
        .await
        .unwrap();
    app.clock.advance(8 * DAY_MS);
    let told = clean(&app, "events", json!({"DryRun": true})).await;
    assert_eq!(clean(&app, "events", json!({})).await, told);
    assert!(told.0 >= 2_900 && told.0 <= (last - 100).unsigned_abs(), "{told:?} of {first}..{last}");
    let left = async || {
        let read = app.app.database.read(|session| Ok(session.events(&key("training-job", "j"))?.len()));
        read.await.unwrap()
    };
    assert_eq!(left().await, 100);
    app.app.database.write(move |session| session.set_event_cursor("test", last + 100)).await.unwrap();
    clean(&app, "events", json!({})).await;
    assert!(left().await <= 1);
    // Positions go on where they were, or readers would miss what comes.
    let next = app.app.database.write(move |session| {
        session.append_event(&key("training-job", "k"), "Happened", &json!({}), now_ms)?;
        session.last_event()
    });
    assert!(next.await.unwrap() > last);
}

#[tokio::test]
async fn logs_go_by_the_policy_of_their_group_or_else_by_the_settings() {
    let app = retaining("logs_days = 90").await;
    let logs = |operation: &str| format!("Logs_20140328.{operation}");
    for group in [GROUP, "mine", "kept"] {
        app.ok(&logs("CreateLogGroup"), json!({"logGroupName": group})).await;
        app.ok(&logs("CreateLogStream"), json!({"logGroupName": group, "logStreamName": "job/algo-1"})).await;
        let events = json!([{"timestamp": app.clock.now_ms(), "message": "x".repeat(1_000)}]);
        let put = json!({"logGroupName": group, "logStreamName": "job/algo-1", "logEvents": events});
        app.ok(&logs("PutLogEvents"), put).await;
    }
    for (group, days) in [("mine", 3), ("kept", 3653)] {
        app.ok(&logs("PutRetentionPolicy"), json!({"logGroupName": group, "retentionInDays": days})).await;
    }
    let shown = app.ok(&logs("DescribeLogGroups"), json!({})).await;
    let days: Vec<&Value> =
        shown["logGroups"].as_array().unwrap().iter().map(|one| &one["retentionInDays"]).collect();
    assert_eq!(days, [&Value::Null, &json!(3653), &json!(3)]);
    let (code, message) =
        app.refused(&logs("PutRetentionPolicy"), json!({"logGroupName": "mine", "retentionInDays": 2})).await;
    assert_eq!(code, "InvalidParameterException");
    assert!(
        message.contains("Value '2' at 'retentionInDays'") && message.contains("1, 3, 5, 7, 14"),
        "{message}"
    );
    let none = json!({"logGroupName": "none"});
    let put = json!({"logGroupName": "none", "retentionInDays": 1});
    for (operation, input) in [("PutRetentionPolicy", put), ("DeleteRetentionPolicy", none)] {
        let refused = app.refused(&logs(operation), input).await;
        let words = "The specified log group does not exist.";
        assert_eq!(refused, ("ResourceNotFoundException".to_owned(), words.to_owned()));
    }
    app.clock.advance(4 * DAY_MS);
    assert_eq!(clean(&app, "logs", json!({"DryRun": true})).await.0, 1);
    let cleaned = clean(&app, "logs", json!({})).await;
    assert!(cleaned.0 == 1 && cleaned.1 > 1_000, "{cleaned:?}");
    app.clock.advance(90 * DAY_MS);
    assert_eq!(clean(&app, "logs", json!({})).await.0, 1);
    app.ok(&logs("DeleteRetentionPolicy"), json!({"logGroupName": "kept"})).await;
    assert_eq!(clean(&app, "logs", json!({})).await.0, 1, "without a policy the settings hold");
}

#[tokio::test]
async fn the_stream_of_a_job_goes_when_it_is_empty_and_the_job_has_ended() {
    let app = retaining("logs_days = 1").await;
    let now_ms = app.clock.now_ms();
    for (stream, running) in [("ended/algo-1", false), ("running/algo-1", true)] {
        let path = app.app.logs.ensure_stream(ACCOUNT, "us-east-1", GROUP, stream).await.unwrap();
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        let (name, _) = stream.split_once('/').unwrap();
        let job = resource("training-job", name, if running { "InProgress" } else { "Completed" }, now_ms);
        app.app.database.write(move |session| session.insert_resource(&job)).await.unwrap();
    }
    app.clock.advance(2 * DAY_MS);
    clean(&app, "logs", json!({})).await;
    let shown = app.ok("Logs_20140328.DescribeLogStreams", json!({"logGroupName": GROUP})).await;
    let streams: Vec<&str> = shown["logStreams"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["logStreamName"].as_str().unwrap())
        .collect();
    assert_eq!(streams, ["running/algo-1"]);
}

#[tokio::test]
async fn idle_uploads_are_given_up_and_their_parts_removed() {
    let app = retaining("uploads_days = 7").await;
    let objects = &app.app.objects;
    objects.create_bucket(ACCOUNT, "us-east-1", "bucket").await.unwrap();
    let mut uploads = Vec::new();
    for key in ["idle", "grown"] {
        let upload = objects.create_upload(ACCOUNT, "bucket", key, Default::default(), None, None).await;
        uploads.push(upload.unwrap());
    }
    app.clock.advance(6 * DAY_MS);
    let mut part = objects.begin_part(ACCOUNT, &uploads[1]).await.unwrap();
    part.write(b"part").unwrap();
    objects.put_part(&uploads[1], 1, part, Default::default()).await.unwrap();
    app.clock.advance(2 * DAY_MS);
    assert_eq!(clean(&app, "uploads", json!({"DryRun": true})).await.0, 1);
    assert_eq!(clean(&app, "uploads", json!({})).await.0, 1);
    let left = objects.uploads(ACCOUNT, "bucket", "", None, 10).await.unwrap();
    assert_eq!(left.iter().map(|upload| upload.key.as_str()).collect::<Vec<_>>(), ["grown"]);
    app.clock.advance(6 * DAY_MS);
    assert_eq!(clean(&app, "uploads", json!({})).await, (1, 4, 1));
}

#[tokio::test]
async fn converted_models_that_nobody_uses_go_with_the_environments() {
    let app = retaining("environments_days = 30").await;
    let used_at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(app.clock.now_ms().unsigned_abs());
    for name in ["used", "unused"] {
        let folder = app.app.config.data_dir.join("converted").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("graph.onnx"), [0; 9_000]).unwrap();
        let report = std::fs::File::create(folder.join("outcome.json")).unwrap();
        report.set_modified(used_at).unwrap();
    }
    assert_eq!(clean(&app, "environments", json!({})).await.0, 0);
    app.clock.advance(31 * DAY_MS);
    server::endpoints::converted::note_use(
        &app.app.config.data_dir.join("converted/used"),
        app.clock.now_ms(),
    );
    assert_eq!(clean(&app, "environments", json!({"DryRun": true})).await.0, 1);
    let cleaned = clean(&app, "environments", json!({})).await;
    assert!(cleaned.0 == 1 && cleaned.1 >= 9_000, "{cleaned:?}");
    let left = std::fs::read_dir(app.app.config.data_dir.join("converted")).unwrap();
    assert_eq!(left.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>(), ["used"]);
}

#[tokio::test]
async fn folders_that_no_job_has_go_and_those_of_running_jobs_stay() {
    let app = TestApp::new().await;
    let now_ms = app.clock.now_ms();
    let mut record = TrainingRecord::default();
    record.hosts.push(HostRecord {
        name: "algo-1".into(),
        workload: "in-use".into(),
        log_stream: "j/algo-1".into(),
        exit: None,
        ended_at: None,
        run: None,
    });
    let running =
        Resource { document: record.to_document(), ..resource("training-job", "j", "InProgress", now_ms) };
    app.app.database.write(move |session| session.insert_resource(&running)).await.unwrap();
    let jobs = app.app.config.data_dir.join("jobs");
    for name in ["in-use", "left", "new"] {
        std::fs::create_dir_all(jobs.join(name)).unwrap();
        std::fs::write(jobs.join(name).join("list"), "x").unwrap();
        let at = if name == "new" { now_ms } else { 0 };
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(at.unsigned_abs());
        std::fs::File::open(jobs.join(name)).unwrap().set_modified(at).unwrap();
    }
    assert_eq!(clean(&app, "folders", json!({"DryRun": true})).await.0, 1);
    assert_eq!(clean(&app, "folders", json!({})).await.0, 1);
    assert!(!jobs.join("left").exists() && jobs.join("new").exists() && jobs.join("in-use").exists());
}

#[tokio::test]
async fn without_settings_nothing_goes_and_what_makes_no_sense_is_refused() {
    let app = TestApp::new().await;
    let now_ms = app.clock.now_ms();
    let old = resource("training-job", "old", "Completed", now_ms);
    app.app.database.write(move |session| session.insert_resource(&old)).await.unwrap();
    app.clock.advance(3_000 * DAY_MS);
    for kind in ["executions", "jobs", "logs", "events", "metrics", "uploads", "environments", "folders"] {
        assert_eq!(clean(&app, kind, json!({})).await.0, 0, "{kind}");
    }
    for (input, words) in [
        (json!({"Kind": "everything"}), "give one of executions, jobs"),
        (json!({"Kind": "jobs", "Days": 0}), "'days'"),
        (json!({"Kind": "folders", "Days": 3}), "Days cannot be given for folders"),
        (json!({"Kind": "jobs", "Days": 3, "After": "nowhere"}), "After"),
    ] {
        let (code, message) = app.refused("Modelyard.Clean", input).await;
        assert_eq!(code, "ValidationException");
        assert!(message.contains(words), "{message}");
    }
    let other = app.other_account("210987654321").await;
    let (code, _) = app.refused_as("Modelyard.Clean", json!({"Kind": "jobs"}), &other).await;
    assert_eq!(code, "AccessDeniedException");
}
