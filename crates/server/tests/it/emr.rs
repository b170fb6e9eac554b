//! EMR and EMR Serverless: clusters with their steps and applications with their runs, which are processing jobs.

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::app::{Answer, TestApp};

const ROLE: &str = "arn:aws:iam::123456789012:role/ModelyardExecutionRole";
/// A release whose environment is the system's Python here, which has no Spark.
const RELEASE: &str = "emr-6.15.0";

async fn app() -> TestApp {
    TestApp::with(|config| {
        let file = config.data_dir.join("system.toml");
        let text = "[[image]]\nname = \"system\"\npattern = '.*/sagemaker-spark-processing:3\\.4-.*'\ninterpreter = \"/usr/bin/python3\"\n";
        std::fs::write(&file, text).unwrap();
        config.images.push(file);
    })
    .await
}

fn cluster(stays: bool, steps: &Value) -> Value {
    json!({
        "Name": "cluster",
        "ReleaseLabel": RELEASE,
        "JobFlowRole": "ModelyardExecutionRole",
        "LogUri": "s3://logs/emr/",
        "Instances": {
            "KeepJobFlowAliveWhenNoSteps": stays,
            "MasterInstanceType": "m5.xlarge",
            "InstanceCount": 1,
        },
        "Steps": steps,
    })
}

fn step(name: &str, words: &[&str]) -> Value {
    json!({"Name": name, "HadoopJarStep": {"Jar": "command-runner.jar", "Args": words}})
}

async fn emr(app: &TestApp, operation: &str, input: Value) -> Value {
    app.ok(&format!("ElasticMapReduce.{operation}"), input).await
}

async fn state(app: &TestApp, id: &str) -> String {
    let described = emr(app, "DescribeCluster", json!({"ClusterId": id})).await;
    described["Cluster"]["Status"]["State"].as_str().unwrap().to_owned()
}

/// Names and states of a cluster's steps, the first first.
async fn steps(app: &TestApp, id: &str) -> Vec<String> {
    let listed = emr(app, "ListSteps", json!({"ClusterId": id})).await;
    let all = listed["Steps"].as_array().unwrap().iter().rev();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    all.map(|step| format!("{} {}", text(&step["Name"]), text(&step["Status"]["State"]))).collect()
}

#[tokio::test]
async fn a_cluster_runs_its_steps_in_their_order_and_ends_as_it_is_told() {
    let app = app().await;
    app.app.objects.create_bucket("123456789012", "us-east-1", "logs").await.unwrap();
    let mut failing = step("second", &["false"]);
    failing["ActionOnFailure"] = "CANCEL_AND_WAIT".into();
    let wanted = json!([step("first", &["true"]), failing, step("third", &["true"])]);
    let made = emr(&app, "RunJobFlow", cluster(true, &wanted)).await;
    let id = made["JobFlowId"].as_str().unwrap();
    assert!(made["ClusterArn"].as_str().unwrap().ends_with(&format!(":cluster/{id}")), "{made}");
    app.until("the cluster waits", || async { (state(&app, id).await == "WAITING").then_some(()) }).await;
    assert_eq!(steps(&app, id).await, ["first COMPLETED", "second FAILED", "third CANCELLED"]);

    let added = json!({"JobFlowId": id, "ExecutionRoleArn": ROLE, "Steps": [step("long", &["sleep", "1000"]), step("after", &["true"])]});
    let ids = emr(&app, "AddJobFlowSteps", added).await["StepIds"].clone();
    app.until("the step runs", || async { (state(&app, id).await == "RUNNING").then_some(()) }).await;
    let cancel = json!({"ClusterId": id, "StepIds": [ids[0], ids[1], "s-NONE"]});
    let answers = emr(&app, "CancelSteps", cancel).await["CancelStepsInfoList"].clone();
    let statuses: Vec<&Value> = answers.as_array().unwrap().iter().map(|answer| &answer["Status"]).collect();
    assert_eq!(statuses, ["SUBMITTED", "SUBMITTED", "FAILED"]);
    app.until("the steps are cancelled", || async {
        steps(&app, id)
            .await
            .ends_with(&["long CANCELLED".to_owned(), "after CANCELLED".to_owned()])
            .then_some(())
    })
    .await;
    let described = emr(&app, "DescribeStep", json!({"ClusterId": id, "StepId": ids[0]})).await;
    assert_eq!(described["Step"]["ExecutionRoleArn"], ROLE);
    let folder = format!("s3://logs/emr/{id}/steps/{}", ids[0].as_str().unwrap());
    assert_eq!(described["Step"]["LogUri"], folder);

    emr(&app, "TerminateJobFlows", json!({"JobFlowIds": [id]})).await;
    app.until("the cluster ends", || async { (state(&app, id).await == "TERMINATED").then_some(()) }).await;
    let refused = json!({"JobFlowId": id, "Steps": [step("late", &["true"])]});
    let (code, text) = app.refused("ElasticMapReduce.AddJobFlowSteps", refused).await;
    assert!(code == "ValidationException" && text.contains("is not running"), "{code} {text}");
    let listed = emr(&app, "ListClusters", json!({"ClusterStates": ["TERMINATED"]})).await;
    assert_eq!(listed["Clusters"][0]["Status"]["StateChangeReason"]["Code"], "USER_REQUEST");
    assert_eq!(emr(&app, "ListClusters", json!({"ClusterStates": ["WAITING"]})).await["Clusters"], json!([]));
}

#[tokio::test]
async fn what_a_local_spark_cannot_do_is_refused_by_name() {
    let app = app().await;
    type Change = fn(&mut Value);
    let cases: &[(Change, &str)] = &[
        (|one| one["ReleaseLabel"] = "emr-5.36.0".into(), "ReleaseLabel"),
        (|one| one["Applications"] = json!([{"Name": "Hive"}]), "Hive"),
        (|one| one["JobFlowRole"] = "Nobody".into(), "role/Nobody"),
        (|one| one["LogUri"] = "file:///logs".into(), "LogUri"),
        (|one| one["SecurityConfiguration"] = "safe".into(), "SecurityConfiguration"),
        (|one| one["Instances"]["TerminationProtected"] = true.into(), "TerminationProtected"),
        (|one| one["Instances"]["MasterInstanceType"] = "huge".into(), "InstanceType"),
        (|one| one["Configurations"] = json!([{"Classification": "yarn-site"}]), "yarn-site"),
        (|one| one["StepConcurrencyLevel"] = 0.into(), "StepConcurrencyLevel"),
        (|one| one["Steps"] = json!([step("empty", &[])]), "HadoopJarStep.Args"),
        (|one| one["Steps"][0]["HadoopJarStep"]["MainClass"] = "Main".into(), "MainClass"),
        (|one| one["Steps"][0]["HadoopJarStep"]["Args"] = json!(vec!["x".repeat(10_000); 3]), "characters"),
    ];
    for (change, named) in cases {
        let mut input = cluster(true, &json!([step("s", &["true"])]));
        change(&mut input);
        let (code, text) = app.refused("ElasticMapReduce.RunJobFlow", input).await;
        assert!(code == "ValidationException" && text.contains(named), "{named}: {code} {text}");
    }
    let (code, _) = app.refused("ElasticMapReduce.DescribeCluster", json!({"ClusterId": "j-1"})).await;
    assert_eq!(code, "InvalidRequestException");
}

async fn serverless(app: &TestApp, method: &str, path: &str, body: Value) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(())
        .unwrap();
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    app.send_signed(request, body, "emr-serverless", &app.key()).await
}

#[tokio::test]
async fn a_job_run_is_started_once_and_told_from_its_job() {
    let app = app().await;
    // CreateApplication
    let wanted = json!({"name": "app", "releaseLabel": RELEASE, "type": "SPARK", "clientToken": "one"});
    let made = serverless(&app, "POST", "/applications", wanted.clone()).await.json();
    let again = serverless(&app, "POST", "/applications", wanted.clone()).await.json();
    assert_eq!(made, again, "a token makes one application");
    let mut other = wanted.clone();
    other["releaseLabel"] = "emr-7.1.0".into();
    assert_eq!(serverless(&app, "POST", "/applications", other).await.status, StatusCode::CONFLICT);
    let mut hive = wanted;
    hive["type"] = "HIVE".into();
    let refused = serverless(&app, "POST", "/applications", hive).await;
    assert!(refused.status == StatusCode::BAD_REQUEST && refused.text().contains("SPARK"), "{refused:?}");

    let id = made["applicationId"].as_str().unwrap();
    let application = format!("/applications/{id}");
    // StartJobRun
    let run = json!({
        "clientToken": "run", "executionRoleArn": ROLE, "name": "first",
        "jobDriver": {"sparkSubmit": {"entryPoint": "s3://none/app.py"}},
    });
    let runs = format!("{application}/jobruns");
    let started = serverless(&app, "POST", &runs, run.clone()).await.json();
    assert_eq!(serverless(&app, "POST", &runs, run.clone()).await.json(), started);
    let one = format!("{runs}/{}", started["jobRunId"].as_str().unwrap());
    // GetJobRun
    let ended = app
        .until("the run fails", || async {
            let run = serverless(&app, "GET", &one, Value::Null).await.json()["jobRun"].clone();
            (run["state"] == "FAILED").then_some(run)
        })
        .await;
    assert!(ended["stateDetails"].as_str().unwrap().contains("pyspark"), "{ended}");
    assert_eq!((&ended["name"], &ended["releaseLabel"]), (&json!("first"), &json!(RELEASE)));
    // ListJobRuns, GetApplication, CancelJobRun of what is over
    let listed = serverless(&app, "GET", &runs, Value::Null).await.json();
    assert_eq!(listed["jobRuns"].as_array().unwrap().len(), 1, "{listed}");
    let described = serverless(&app, "GET", &application, Value::Null).await.json();
    assert_eq!(described["application"]["state"], "STARTED");
    assert_eq!(serverless(&app, "DELETE", &one, Value::Null).await.status, StatusCode::BAD_REQUEST);
    // DeleteApplication, StopApplication, StartApplication, ListApplications
    assert_eq!(serverless(&app, "DELETE", &application, Value::Null).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        serverless(&app, "POST", &format!("{application}/stop"), Value::Null).await.status,
        StatusCode::OK
    );
    assert_eq!(
        serverless(&app, "POST", &format!("{application}/start"), Value::Null).await.status,
        StatusCode::OK
    );
    assert_eq!(
        serverless(&app, "POST", &format!("{application}/stop"), Value::Null).await.status,
        StatusCode::OK
    );
    assert_eq!(serverless(&app, "DELETE", &application, Value::Null).await.status, StatusCode::OK);
    assert_eq!(serverless(&app, "GET", &application, Value::Null).await.status, StatusCode::NOT_FOUND);
    let listed = serverless(&app, "GET", "/applications?states=TERMINATED", Value::Null).await.json();
    assert_eq!(listed["applications"][0]["id"], *id);
    let unknown = serverless(&app, "POST", &runs, run).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
}
