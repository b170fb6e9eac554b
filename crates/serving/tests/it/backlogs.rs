//! Requests that wait at a worker which answers them one by one.

use std::sync::Arc;
use std::time::Duration;

use serving::{BatchSettings, DataPlaneSettings, InvokeError, InvokeRequest, InvokeResponse};
use tokio::task::JoinSet;

use crate::scene::{ENDPOINT, Scene, quick_settings, variant};

/// Answers with the request, or dies of it.
const SCRIPT: &str = r#"
import os, signal

def model_fn(model_dir):
    return None

def transform_fn(model, body, content_type, accept):
    if body == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if body == "raise":
        raise ValueError("bad row")
    return "l" * 2000 if body == "long" else body, accept
"#;

type Answer = Result<InvokeResponse, InvokeError>;

/// Workers count as quick whatever the machine does beside.
fn settings() -> DataPlaneSettings {
    let batch = BatchSettings { backlog: Duration::from_secs(1), ..BatchSettings::default() };
    DataPlaneSettings { batch, ..quick_settings() }
}

async fn begin(settings: DataPlaneSettings, workers: u32) -> Arc<Scene> {
    let scene = Arc::new(Scene::with_settings(settings));
    let mut plan = variant("AllTraffic", &scene.model_with_script("quick", SCRIPT));
    plan.workers = workers;
    scene.serve(1, vec![plan]).await;
    scene
}

fn in_backlogs(scene: &Scene) -> u64 {
    scene.data_plane.metrics(ENDPOINT).unwrap().remove(0).batches.in_backlogs
}

/// All of them at once; each body with its answer.
async fn at_once(scene: &Arc<Scene>, bodies: Vec<String>) -> Vec<(String, Answer)> {
    let mut asking = JoinSet::new();
    for body in bodies {
        let scene = Arc::clone(scene);
        asking.spawn(async move {
            let request = InvokeRequest {
                content_type: Some("text/csv".into()),
                body: body.clone().into(),
                ..InvokeRequest::default()
            };
            (body, scene.invoke(request).await)
        });
    }
    asking.join_all().await
}

fn plain(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

/// Asks until requests wait at the workers.
async fn warmed(scene: &Arc<Scene>) {
    let before = in_backlogs(scene);
    for _ in 0..1_000 {
        for (body, answer) in at_once(scene, plain(32)).await {
            assert_eq!(said(&answer), body);
        }
        if in_backlogs(scene) > before {
            return;
        }
    }
    panic!("the workers never had several requests at once");
}

/// What an answer says.
fn said(answer: &Answer) -> String {
    String::from_utf8(answer.as_ref().unwrap().body.to_vec()).unwrap()
}

#[tokio::test]
async fn requests_wait_at_quick_workers_and_each_has_its_own_answer() {
    let scene = begin(settings(), 2).await;
    warmed(&scene).await;
    let mut bodies = plain(60);
    bodies.insert(30, "raise".into());
    for (body, answer) in at_once(&scene, bodies).await {
        match body.as_str() {
            "raise" => assert!(matches!(answer, Err(InvokeError::ModelError { .. })), "{answer:?}"),
            _ => assert_eq!(said(&answer), body),
        }
    }
    let metrics = scene.data_plane.metrics(ENDPOINT).unwrap().remove(0);
    assert_eq!((metrics.batches.batches(), metrics.batches.limit), (0, 0), "nothing was joined");
}

#[tokio::test]
async fn of_a_worker_that_dies_one_request_fails() {
    let scene = begin(settings(), 2).await;
    for round in 0..5 {
        warmed(&scene).await;
        let mut bodies = plain(60);
        bodies.insert(10 * round, "crash".into());
        for (body, answer) in at_once(&scene, bodies).await {
            match body.as_str() {
                "crash" => assert!(matches!(answer, Err(InvokeError::ContainerLost { .. })), "{answer:?}"),
                _ => assert_eq!(said(&answer), body),
            }
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_too_long_fails_alone() {
    let settings = DataPlaneSettings { max_response_bytes: 1000, ..settings() };
    let scene = begin(settings, 1).await;
    warmed(&scene).await;
    let mut bodies = plain(40);
    bodies.insert(5, "long".into());
    for (body, answer) in at_once(&scene, bodies).await {
        match body.as_str() {
            "long" => assert!(matches!(answer, Err(InvokeError::TooLarge { .. })), "{answer:?}"),
            _ => assert_eq!(said(&answer), body),
        }
    }
}

#[tokio::test]
async fn where_it_is_not_wanted_nothing_waits_at_a_worker() {
    for batch in [
        BatchSettings { requests: 1, ..BatchSettings::default() },
        BatchSettings { backlog: Duration::ZERO, ..BatchSettings::default() },
    ] {
        let scene = begin(DataPlaneSettings { batch, ..settings() }, 1).await;
        for _ in 0..40 {
            at_once(&scene, plain(32)).await;
        }
        assert_eq!(in_backlogs(&scene), 0);
    }
}
