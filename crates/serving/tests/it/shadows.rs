//! Shadow variants with real model hosts: both answers are seen, and production notices nothing, whatever the shadow does.

use std::sync::Arc;

use serving::{BoxFuture, InvokeError, InvokeRequest, ShadowObserver, ShadowPair, ShadowPlan, VariantPlan};
use tokio::sync::mpsc;

use crate::scene::{ENDPOINT, Scene, order, text, variant};

/// What an observer sees.
enum Seen {
    Pair(Box<ShadowPair>),
    Dropped,
}

struct Watching(mpsc::UnboundedSender<Seen>);

impl ShadowObserver for Watching {
    fn answered(&self, pair: ShadowPair) -> BoxFuture<'_, ()> {
        let _ = self.0.send(Seen::Pair(Box::new(pair)));
        Box::pin(async {})
    }

    fn dropped(&self) {
        let _ = self.0.send(Seen::Dropped);
    }
}

struct Watched(mpsc::UnboundedReceiver<Seen>);

impl Watched {
    async fn pair(&mut self) -> ShadowPair {
        match self.0.recv().await.unwrap() {
            Seen::Pair(pair) => *pair,
            Seen::Dropped => panic!("a copy was dropped"),
        }
    }
}

fn watch(scene: &Scene, share: f64, copies: usize) -> Watched {
    let (sender, receiver) = mpsc::unbounded_channel();
    let plan = ShadowPlan { copies, ..ShadowPlan::new("shadow".into(), share, Arc::new(Watching(sender))) };
    scene.data_plane.set_shadow(ENDPOINT, Some(plan));
    Watched(receiver)
}

/// An endpoint with a shadow that runs this script.
async fn serve(scene: &Scene, script: &str) {
    let production = variant("main", &scene.model("one"));
    let shadow = scene.model_with_script("two", script);
    scene.serve(1, vec![production, VariantPlan { weight: 0.0, ..variant("shadow", &shadow) }]).await;
}

const OTHER: &str = r#"
def model_fn(model_dir): return None
def transform_fn(model, body, content_type, accept, context):
    return b"other " + (body if isinstance(body, bytes) else body.encode()), "text/plain"
"#;

fn request(body: &'static str) -> InvokeRequest {
    InvokeRequest { body: body.into(), content_type: Some("text/plain".into()), ..InvokeRequest::default() }
}

#[tokio::test]
async fn both_answers_are_seen_and_callers_see_one() {
    let scene = Scene::new();
    serve(&scene, OTHER).await;
    let mut watched = watch(&scene, 1.0, 8);
    assert_eq!(text(&scene.invoke(request("hello")).await.unwrap()), "hello");
    let pair = watched.pair().await;
    assert_eq!(pair.request.body, "hello");
    assert_eq!(pair.request.target_variant, None);
    let (production, shadow) = (pair.production.outcome.unwrap(), pair.shadow.outcome.unwrap());
    assert_eq!((text(&production), production.answer.invoked_variant.as_str()), ("hello".into(), "main"));
    assert_eq!((text(&shadow), shadow.answer.invoked_variant.as_str()), ("other hello".into(), "shadow"));

    // What production fails at is copied, too.
    scene.invoke(order("raise:luck")).await.unwrap_err();
    let pair = watched.pair().await;
    assert!(pair.production.outcome.is_err() && pair.shadow.outcome.is_ok());

    let mut stream = scene.data_plane.invoke_stream(ENDPOINT, order("stream:3")).await.unwrap();
    while stream.next_chunk().await.is_some() {}
    assert_eq!(text(&watched.pair().await.production.outcome.unwrap()), "piece 0;piece 1;piece 2;");

    let named = InvokeRequest { target_variant: Some("shadow".into()), ..request("x") };
    let refused = scene.invoke(named).await.unwrap_err();
    assert!(matches!(refused, InvokeError::NoSuchVariant { .. }), "{refused}");
    let metrics = scene.data_plane.metrics(ENDPOINT).unwrap();
    let invocations = |name: &str| metrics.iter().find(|one| one.variant == name).unwrap().invocations;
    assert_eq!((invocations("main"), invocations("shadow")), (3, 3));

    // No share and a session: nothing is copied.
    let mut nothing = watch(&scene, 0.0, 8);
    scene.invoke(request("x")).await.unwrap();
    scene.data_plane.set_shadow(ENDPOINT, None);
    scene.invoke(request("x")).await.unwrap();
    assert!(nothing.0.recv().await.is_none(), "the observer went with the plan");
}

#[tokio::test]
async fn a_shadow_that_hangs_costs_production_nothing_and_no_memory() {
    let scene = Scene::new();
    let fifo = scene.fifo("gate");
    let script = format!(
        r#"
def model_fn(model_dir): return None
def transform_fn(model, body, content_type, accept, context):
    with open({:?}) as fifo: return fifo.read(), "text/plain"
"#,
        fifo.display().to_string()
    );
    serve(&scene, &script).await;
    let mut watched = watch(&scene, 1.0, 2);
    for _ in 0..5 {
        assert_eq!(text(&scene.invoke(request("hello")).await.unwrap()), "hello");
    }
    // Two are with the shadow, or wait for it; the others found no room.
    for _ in 0..3 {
        assert!(matches!(watched.0.recv().await.unwrap(), Seen::Dropped));
    }
    for _ in 0..2 {
        let path = fifo.clone();
        tokio::task::spawn_blocking(move || std::fs::write(path, "late").unwrap()).await.unwrap();
        let pair = watched.pair().await;
        assert_eq!(text(&pair.shadow.outcome.unwrap()), "late");
    }
    // One that hangs does not keep the endpoint from going.
    scene.invoke(request("hello")).await.unwrap();
    scene.data_plane.remove(ENDPOINT).await;
    assert!(watched.0.recv().await.is_none());
}

#[tokio::test]
async fn a_shadow_that_dies_fails_alone() {
    let scene = Scene::new();
    let script = r#"
import os, signal
def model_fn(model_dir): return None
def transform_fn(model, body, content_type, accept, context): os.kill(os.getpid(), signal.SIGKILL)
"#;
    serve(&scene, script).await;
    let mut watched = watch(&scene, 1.0, 8);
    for _ in 0..3 {
        assert_eq!(text(&scene.invoke(request("hello")).await.unwrap()), "hello");
        let pair = watched.pair().await;
        assert!(pair.production.outcome.is_ok());
        let lost = pair.shadow.outcome.unwrap_err();
        assert!(matches!(lost, InvokeError::ContainerLost { .. }), "{lost}");
    }
}
