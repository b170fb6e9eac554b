//! `TestApp`: an app on a temporary data directory, and signed requests to its router.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use runner::executor::{ExecutorSettings, ProcessExecutor};
use serde_json::{Value, json};
use server::app::{Parts, Router};
use server::config::Config;
use server::{App, data_dir};
use store::Clock;
use tempfile::TempDir;
use wire::Body;

/// An app with its router; the folder goes when it is dropped.
pub struct TestApp {
    /// The state.
    pub app: Arc<App>,
    /// The clock, which stands still.
    pub clock: Clock,
    router: Router,
    key: Key,
    _lock: data_dir::OwnerLock,
    _folder: TempDir,
}

/// Keys that sign a request.
#[derive(Clone)]
pub struct Key {
    /// Public half.
    pub access_key_id: String,
    /// Secret half.
    pub secret_access_key: String,
    /// Token of short-lived keys.
    pub session_token: Option<String>,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Headers.
    pub headers: http::HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {:?}", self.body))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl TestApp {
    /// An app with one account; its clock stands still at a fixed time.
    pub async fn new() -> TestApp {
        TestApp::with(|_| ()).await
    }

    /// As [`TestApp::new`], with this `[capacity]` table in the settings file.
    pub async fn with_capacity(table: &str) -> TestApp {
        let capacity = toml::from_str(table).unwrap();
        TestApp::with(|config| config.capacity = capacity).await
    }

    /// As [`TestApp::new`], with changed settings.
    pub async fn with(change: impl FnOnce(&mut Config)) -> TestApp {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("data");
        let lock = data_dir::take(&data_dir).unwrap();
        let mut config = Config {
            data_dir: data_dir.clone(),
            listen: ([127, 0, 0, 1], 0).into(),
            open_protocols: None,
            region: "us-east-1".into(),
            account: "123456789012".into(),
            tls: None,
            images: vec![PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../tests/clients/light-images.toml"
            ))],
            parallel_jobs: 2,
            capacity: Default::default(),
            job_user_id: 64_000,
            required_locks: Vec::new(),
            metrics_token: None,
            metrics_retention_days: 455,
            containers: server::containers::ContainerConfig::default(),
            registry: Default::default(),
            retention: Default::default(),
            endpoints: Default::default(),
            scale_in_after_seconds: server::config::DEFAULT_SCALE_IN_AFTER_SECONDS,
            hang_after_seconds: server::config::DEFAULT_HANG_AFTER_SECONDS,
            hang_action: server::config::HangAction::Warn,
            remote_cache_gib: server::config::DEFAULT_REMOTE_CACHE_GIB,
            build_environment: BTreeMap::new(),
            search_path: server::config::search_path(),
        };
        change(&mut config);
        let clock = Clock::fixed(1_770_000_000_000);
        let supervisor = vec![env!("CARGO_BIN_EXE_modelyard").to_owned(), "supervise".to_owned()];
        let executor =
            ProcessExecutor::new(&data_dir.join("workloads"), supervisor, ExecutorSettings::default())
                .unwrap();
        let parts = Parts {
            clock: clock.clone(),
            executor: Arc::new(executor),
            endpoint: "http://127.0.0.1:1".into(),
            ca_bundle: None,
            machine: server::capacity::Machine { cpus: 2.0, memory_bytes: 8 << 30, gpus: Vec::new() },
        };
        let app = App::open(config, parts).await.unwrap();
        let key = Key {
            access_key_id: app.connection.access_key_id.clone(),
            secret_access_key: app.connection.secret_access_key.clone(),
            session_token: None,
        };
        TestApp { router: server::router(&app), app, clock, key, _lock: lock, _folder: folder }
    }

    /// Asks until the answer is there; the pause only keeps the loop from spinning.
    pub async fn until<T, F: Future<Output = Option<T>>>(&self, what: &str, mut ask: impl FnMut() -> F) -> T {
        let asking = async {
            loop {
                if let Some(answer) = ask().await {
                    return answer;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let limit = std::time::Duration::from_secs(60);
        tokio::time::timeout(limit, asking).await.unwrap_or_else(|_| panic!("not within a minute: {what}"))
    }

    /// Waits for a training job's end and describes it.
    pub async fn ended(&self, name: &str) -> Value {
        self.until(&format!("{name} ends"), || async {
            let job = self.ok("SageMaker.DescribeTrainingJob", json!({"TrainingJobName": name})).await;
            let ended = matches!(job["TrainingJobStatus"].as_str(), Some("Completed" | "Failed" | "Stopped"));
            ended.then_some(job)
        })
        .await
    }

    /// The key of the first account.
    pub fn key(&self) -> Key {
        self.key.clone()
    }

    /// A second account's key.
    pub async fn other_account(&self, id: &str) -> Key {
        let key = server::identity::create_account(
            &self.app.database,
            id.into(),
            "other".into(),
            self.clock.now_ms(),
        );
        let key = key.await.unwrap();
        Key {
            access_key_id: key.access_key_id,
            secret_access_key: key.secret_access_key,
            session_token: None,
        }
    }

    /// Sends a request as it is.
    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response: Response<Body> = (self.router)(request, None).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// Signs and sends a request.
    pub async fn send_signed(
        &self,
        mut request: Request<()>,
        body: Bytes,
        service: &str,
        key: &Key,
    ) -> Answer {
        request.headers_mut().insert("host", "127.0.0.1:1".parse().unwrap());
        let signer = wire::sigv4::Signer {
            access_key_id: &key.access_key_id,
            secret_access_key: &key.secret_access_key,
            session_token: key.session_token.as_deref(),
            region: "us-east-1",
            service,
        };
        signer.sign(&mut request, &body, self.clock.now_ms());
        self.send(request.map(|()| wire::full(body))).await
    }

    /// Calls a JSON operation by its target with the first account's key.
    pub async fn call(&self, target: &str, input: Value) -> Answer {
        self.call_as(target, input, &self.key).await
    }

    /// Calls a JSON operation by its target.
    pub async fn call_as(&self, target: &str, input: Value, key: &Key) -> Answer {
        let service = match target.split('.').next().unwrap() {
            "SageMaker" => "sagemaker",
            "Logs_20140328" => "logs",
            "GraniteServiceVersion20100801" => "monitoring",
            "AnyScaleFrontendService" => "application-autoscaling",
            "TrentService" => "kms",
            "AmazonSQS" => "sqs",
            "AWSEvents" => "events",
            "ElasticMapReduce" => "elasticmapreduce",
            "AWSGlue" => "glue",
            "Modelyard" => "modelyard",
            other => panic!("which service is {other}?"),
        };
        let request = Request::post("/")
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", target)
            .body(())
            .unwrap();
        self.send_signed(request, Bytes::from(input.to_string()), service, key).await
    }

    /// Calls an operation that must succeed.
    pub async fn ok(&self, target: &str, input: Value) -> Value {
        let answer = self.call(target, input).await;
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        if answer.body.is_empty() { json!({}) } else { answer.json() }
    }

    /// Calls an operation that must be refused; returns code and message.
    pub async fn refused(&self, target: &str, input: Value) -> (String, String) {
        self.refused_as(target, input, &self.key).await
    }

    /// Calls an operation that must be refused; returns code and message.
    pub async fn refused_as(&self, target: &str, input: Value, key: &Key) -> (String, String) {
        let answer = self.call_as(target, input, key).await;
        assert!(answer.status.is_client_error(), "{target}: {} {}", answer.status, answer.text());
        assert!(answer.headers.contains_key("x-amzn-requestid"), "{target}: every answer has a request id");
        let body = answer.json();
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        // Error shapes name their text one way or the other.
        (text("__type"), text("message") + &text("Message"))
    }

    /// Keys of a session of the account's role; `parameters` go to AssumeRole as they are.
    pub async fn assume_role(&self, parameters: &str, key: &Key) -> Key {
        let answer = self.form("sts", &format!("{ASSUME_ROLE}{parameters}"), key).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let xml = answer.text();
        Key {
            access_key_id: element(&xml, "AccessKeyId"),
            secret_access_key: element(&xml, "SecretAccessKey"),
            session_token: Some(element(&xml, "SessionToken")),
        }
    }

    /// Sends a query-protocol form.
    pub async fn form(&self, service: &str, form: &str, key: &Key) -> Answer {
        let request =
            Request::post("/").header("content-type", "application/x-www-form-urlencoded").body(()).unwrap();
        self.send_signed(request, Bytes::from(form.to_owned()), service, key).await
    }
}

/// AssumeRole of the account's role, as a form.
pub const ASSUME_ROLE: &str = "Action=AssumeRole&Version=2011-06-15&RoleSessionName=me\
     &RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2FModelyardExecutionRole";

/// The text of the first element with this name.
pub fn element(xml: &str, name: &str) -> String {
    let start =
        xml.find(&format!("<{name}>")).unwrap_or_else(|| panic!("no {name} in {xml}")) + name.len() + 2;
    let end = xml[start..].find(&format!("</{name}>")).unwrap();
    xml[start..start + end].to_owned()
}

impl Drop for TestApp {
    /// A failed test leaves no job behind.
    fn drop(&mut self) {
        for id in self.app.executor.list().unwrap_or_default() {
            // One that has ended cannot be killed any more.
            let _ = self.app.executor.kill(&id);
        }
    }
}

/// A request for a training job that would be accepted.
pub fn training_job(name: &str) -> Value {
    json!({
        "TrainingJobName": name,
        "AlgorithmSpecification": {
            "TrainingImage": "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-base-python:3.11",
            "TrainingInputMode": "File",
        },
        "RoleArn": "arn:aws:iam::123456789012:role/ModelyardExecutionRole",
        "OutputDataConfig": {"S3OutputPath": "s3://results/models"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    })
}
