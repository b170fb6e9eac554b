//! Requests that wait for a worker and are answered by one call of the model: each gets its own answer or error.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use serving::{
    BatchSettings, DataPlaneSettings, InvokeError, InvokeRequest, InvokeResponse, VariantMetrics, VariantPlan,
};
use tokio::task::{JoinHandle, JoinSet};

use crate::scene::{ENDPOINT, Scene, quick_settings, variant};

/// Each row says by its first cell what is to happen, and is answered for itself.
const SCRIPT: &str = r#"
import json, os, signal

def model_fn(model_dir):
    return 2

def input_fn(body, content_type):
    return json.loads(body)

def predict_fn(rows, model):
    for row in rows:
        if row[0] == "await":
            with open(row[1]) as fifo:
                fifo.read()
        if row[0] == "raise":
            raise ValueError("bad " + str(row[1]))
        if row[0] == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
    return [answer(row, model, len(rows)) for row in rows]

def answer(row, model, size):
    if row[0] == "size":
        return size
    if row[0] == "long":
        return "l" * row[1]
    return [row[0], row[1] * model]

def output_fn(prediction, accept, context):
    context.set_response_header(0, "X-Amzn-SageMaker-Custom-Attributes", "rows " + str(len(prediction)))
    return json.dumps(prediction)
"#;

type Answer = Result<InvokeResponse, InvokeError>;

struct Batching {
    scene: Arc<Scene>,
}

impl Batching {
    /// An endpoint whose script says that its rows may be joined.
    async fn begin(settings: DataPlaneSettings, change: impl FnOnce(&mut VariantPlan)) -> Batching {
        let scene = Arc::new(Scene::with_settings(settings));
        let mut plan = variant("AllTraffic", &scene.model_with_script("rows", SCRIPT));
        plan.launch["environment"] = json!({"MODEL_HOST_BATCH": "rows"});
        change(&mut plan);
        scene.serve(1, vec![plan]).await;
        Batching { scene }
    }

    fn ask(&self, rows: Value) -> JoinHandle<Answer> {
        let scene = Arc::clone(&self.scene);
        tokio::spawn(async move { scene.invoke(request(&rows)).await })
    }

    fn metrics(&self) -> VariantMetrics {
        self.scene.data_plane.metrics(ENDPOINT).unwrap().remove(0)
    }

    /// Keeps a worker busy until the file is dropped.
    async fn hold(&self, name: &str) -> (JoinHandle<Answer>, File) {
        let gate = self.scene.fifo(name);
        let held = self.ask(json!([["await", gate.display().to_string()]]));
        (held, opened(&gate).await)
    }

    async fn until_in_flight(&self, requests: u64) {
        while self.metrics().in_flight != requests {
            tokio::task::yield_now().await;
        }
    }

    /// The answers to these requests, which have all come before any is answered.
    async fn together(&self, name: &str, requests: &[Value]) -> Vec<Answer> {
        let (held, gate) = self.hold(name).await;
        let mut asked = Vec::new();
        for (number, rows) in requests.iter().enumerate() {
            asked.push(self.ask(rows.clone()));
            self.until_in_flight(2 + number as u64).await;
        }
        drop(gate);
        let mut answers = Vec::new();
        for one in asked {
            answers.push(one.await.unwrap());
        }
        // The held request's answer is of no interest, but it must have one.
        let _ = held.await.unwrap();
        answers
    }
}

async fn opened(gate: &Path) -> File {
    let gate = gate.to_owned();
    let open = tokio::task::spawn_blocking(move || File::options().write(true).open(gate));
    open.await.unwrap().unwrap()
}

fn request(rows: &Value) -> InvokeRequest {
    InvokeRequest { body: rows.to_string().into(), ..InvokeRequest::default() }
}

fn value(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.as_ref().unwrap().body).unwrap()
}

#[tokio::test]
async fn requests_that_wait_are_answered_by_one_call() {
    let batching = Batching::begin(quick_settings(), |_| {}).await;
    let requests: Vec<Value> =
        (0..8).map(|number| json!([[number, number], ["size", 0]])).chain([json!([["size", 0]])]).collect();
    let answers = batching.together("gate", &requests).await;
    for (number, answer) in answers[..8].iter().enumerate() {
        assert_eq!(value(answer), json!([[number, 2 * number], 17]), "request {number}");
        let attributes = answer.as_ref().unwrap().answer.custom_attributes.as_deref();
        assert_eq!(attributes, Some("rows 2"));
    }
    assert_eq!(value(&answers[8]), json!([17]));
    let metrics = batching.metrics();
    assert_eq!((metrics.batches.batches(), metrics.batches.requests), (1, 9));
    assert_eq!((metrics.invocations, metrics.errors_5xx, metrics.model_latencies.count()), (10, 0, 10));
}

#[tokio::test]
async fn nobody_waits_while_a_worker_is_free() {
    let batching = Batching::begin(quick_settings(), |_| {}).await;
    for _ in 0..20 {
        assert_eq!(value(&batching.ask(json!([["size", 0]])).await.unwrap()), json!([1]));
    }
    assert_eq!(batching.metrics().batches.batches(), 0);
}

#[tokio::test]
async fn a_request_that_fails_fails_alone_and_as_it_would_have_alone() {
    let batching = Batching::begin(quick_settings(), |_| {}).await;
    let body = |answer: &Answer| match answer {
        Err(InvokeError::ModelError { answer, body, .. }) => (answer.status, body.clone()),
        other => panic!("{other:?}"),
    };
    let (bad, unreadable) = (json!([["raise", 7]]), json!("no rows"));
    let alone = body(&batching.ask(bad.clone()).await.unwrap());
    let unreadable_alone = body(&batching.ask(unreadable.clone()).await.unwrap());
    let requests = [json!([[1, 1]]), bad, json!([[3, 3]]), unreadable, json!([["size", 0]])];
    let answers = batching.together("gate", &requests).await;
    assert_eq!((value(&answers[0]), value(&answers[2])), (json!([[1, 2]]), json!([[3, 6]])));
    assert_eq!(body(&answers[1]), alone);
    assert_eq!(body(&answers[3]), unreadable_alone);
    // Nobody was answered together with the one that fails.
    assert_eq!(value(&answers[4]), json!([1]));
}

#[tokio::test]
async fn a_worker_that_dies_takes_along_those_that_it_had() {
    let batching = Batching::begin(quick_settings(), |_| {}).await;
    let answers = batching.together("gate", &[json!([[1, 1]]), json!([["crash", 0]]), json!([[2, 2]])]).await;
    for answer in &answers {
        assert!(matches!(answer, Err(InvokeError::ContainerLost { .. })), "{answer:?}");
    }
    assert_eq!(value(&batching.ask(json!([[4, 4]])).await.unwrap()), json!([[4, 8]]));
    assert_eq!(batching.metrics().errors_5xx, 3);
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_refused_alone() {
    let settings = DataPlaneSettings { max_response_bytes: 1000, ..quick_settings() };
    let batching = Batching::begin(settings, |_| {}).await;
    let answers =
        batching.together("gate", &[json!([[1, 1]]), json!([["long", 2000]]), json!([["long", 1]])]).await;
    assert_eq!(value(&answers[0]), json!([[1, 2]]));
    assert!(matches!(answers[1], Err(InvokeError::TooLarge { .. })), "{:?}", answers[1]);
    assert_eq!(value(&answers[2]), json!(["l"]));
}

#[tokio::test]
async fn one_who_goes_away_leaves_the_others_theirs() {
    let batching = Batching::begin(quick_settings(), |_| {}).await;
    let (held, gate) = batching.hold("gate").await;
    let (first, second) = (batching.ask(json!([[1, 1]])), batching.ask(json!([[2, 2]])));
    let inner = batching.scene.fifo("inner");
    let slow = batching.ask(json!([["await", inner.display().to_string()]]));
    batching.until_in_flight(4).await;
    first.abort();
    drop(gate);
    // The rest is with the worker now.
    let inner = opened(&inner).await;
    slow.abort();
    drop(inner);
    assert_eq!(value(&second.await.unwrap()), json!([[2, 4]]));
    held.await.unwrap().unwrap();
    assert_eq!(value(&batching.ask(json!([[3, 3]])).await.unwrap()), json!([[3, 6]]));
    let batches = batching.metrics().batches;
    assert_eq!((batches.batches(), batches.requests), (1, 2));
}

#[tokio::test]
async fn a_call_that_overruns_its_time_is_given_up_for_all_that_it_was_for() {
    let batching = Batching::begin(quick_settings(), |plan| plan.model_timeout_seconds = 1.0).await;
    let never = batching.scene.fifo("never-opened");
    let (held, gate) = batching.hold("gate").await;
    let asked =
        [batching.ask(json!([[1, 1]])), batching.ask(json!([["await", never.display().to_string()]]))];
    batching.until_in_flight(3).await;
    drop(gate);
    for one in asked {
        let answer = one.await.unwrap();
        assert!(matches!(answer, Err(InvokeError::Timeout { .. })), "{answer:?}");
    }
    let _ = held.await.unwrap();
    assert_eq!(value(&batching.ask(json!([[4, 4]])).await.unwrap()), json!([[4, 8]]));
}

#[tokio::test]
async fn what_may_not_be_joined_is_answered_alone() {
    let one_by_one = DataPlaneSettings {
        batch: BatchSettings { requests: 1, ..BatchSettings::default() },
        ..quick_settings()
    };
    let sizes: Vec<Value> = (0..4).map(|_| json!([["size", 0]])).collect();
    let batching = Batching::begin(one_by_one, |_| {}).await;
    for answer in batching.together("gate", &sizes).await {
        assert_eq!(value(&answer), json!([1]));
    }
    // A script that does not say so.
    let batching = Batching::begin(quick_settings(), |plan| plan.launch["environment"] = json!({})).await;
    for answer in batching.together("gate", &sizes).await {
        assert_eq!(value(&answer), json!([1]));
    }
    let limited = |plan: &mut VariantPlan| {
        plan.launch["environment"] = json!({"MODEL_HOST_BATCH": "rows", "MODEL_HOST_BATCH_LIMIT": "2"});
    };
    let batching = Batching::begin(quick_settings(), limited).await;
    for answer in batching.together("gate", &sizes).await {
        assert_eq!(value(&answer), json!([2]));
    }
    assert_eq!(batching.metrics().batches.limit, 2);
}

#[tokio::test]
async fn a_long_request_goes_alone_and_several_workers_share_the_line() {
    let settings = DataPlaneSettings {
        batch: BatchSettings { bytes: 400, ..BatchSettings::default() },
        ..quick_settings()
    };
    let batching = Batching::begin(settings, |_| {}).await;
    let long: Vec<Value> = (0..100).map(|_| json!(["size", 0])).collect();
    let requests = [json!([["size", 0]]), json!(long), json!([["size", 0]])];
    let answers = batching.together("gate", &requests).await;
    assert_eq!((value(&answers[0]), value(&answers[2])), (json!([2]), json!([2])));
    assert_eq!(value(&answers[1])[0], json!(100));

    let batching = Batching::begin(quick_settings(), |plan| plan.workers = 2).await;
    let (other, other_gate) = batching.hold("other").await;
    let (held, gate) = batching.hold("gate").await;
    let mut asked = JoinSet::new();
    for number in 0..6 {
        let one = batching.ask(json!([["size", 0]]));
        asked.spawn(async move { value(&one.await.unwrap()) });
        batching.until_in_flight(3 + number).await;
    }
    // The one that comes free takes half of them, then half of what is left, as the other might come free at any time.
    drop(gate);
    let mut sizes = Vec::new();
    while let Some(size) = asked.join_next().await {
        sizes.push(size.unwrap()[0].as_u64().unwrap());
    }
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 2, 2, 3, 3, 3]);
    drop(other_gate);
    other.await.unwrap().unwrap();
    held.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_worker_waits_for_more_only_when_it_is_told_to() {
    let settings = DataPlaneSettings {
        batch: BatchSettings { delay: Duration::from_secs(3600), requests: 3, ..BatchSettings::default() },
        ..quick_settings()
    };
    let batching = Batching::begin(settings, |_| {}).await;
    // With a full batch there is nothing to wait for, and with a free worker nobody to wait with.
    let requests: Vec<Value> = (0..3).map(|_| json!([["size", 0]])).collect();
    for answer in batching.together("gate", &requests).await {
        assert_eq!(value(&answer), json!([3]));
    }
    let settings = DataPlaneSettings {
        batch: BatchSettings { delay: Duration::from_millis(1), ..BatchSettings::default() },
        ..quick_settings()
    };
    let batching = Batching::begin(settings, |_| {}).await;
    for answer in batching.together("gate", &requests[..1]).await {
        assert_eq!(value(&answer), json!([1]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_comes_together_each_gets_its_own_answer() {
    const CALLERS: u64 = 16;
    const TURNS: u64 = 60;
    let batching = Batching::begin(quick_settings(), |plan| plan.workers = 2).await;
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let scene = Arc::clone(&batching.scene);
        callers.spawn(async move {
            for turn in 0..TURNS {
                let count = 1 + rand::random_range(0..4_u64);
                let width = rand::random_range(0..2_usize);
                let row = |number: u64| {
                    let mut row = vec![json!(caller), json!(turn * 10 + number)];
                    row.extend(vec![json!(0); width]);
                    row
                };
                let mut rows: Vec<_> = (0..count).map(row).collect();
                let fails = rand::random_range(0..8) == 0;
                if fails {
                    rows[0][0] = json!("raise");
                }
                let answer = scene.invoke(request(&json!(rows))).await;
                if fails {
                    let Err(InvokeError::ModelError { body, .. }) = answer else { panic!("{answer:?}") };
                    let text = String::from_utf8(body.to_vec()).unwrap();
                    assert!(text.contains(&format!("bad {}\"", turn * 10)), "{text}");
                    continue;
                }
                let expected: Vec<_> =
                    (0..count).map(|number| json!([caller, 2 * (turn * 10 + number)])).collect();
                assert_eq!(value(&answer), json!(expected));
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    let metrics = batching.metrics();
    assert!(metrics.batches.batches() > 0, "{metrics:?}");
    assert_eq!((metrics.ended, metrics.in_flight), (CALLERS * TURNS, 0));
}
