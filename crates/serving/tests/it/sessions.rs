//! Sessions: a request that belongs to one goes to the worker that opened it, or nowhere.

use serving::{InvokeError, InvokeRequest, SessionPlace, VariantPlan};

use crate::scene::{Scene, order, text, variant};

/// Opens a session for whoever asks for a new one, and says which process answers.
const SCRIPT: &str = r#"
import os, signal

def model_fn(model_dir):
    return None

def transform_fn(model, body, content_type, accept, context):
    order, _, value = (context.get_request_header(0, "X-Amzn-SageMaker-Custom-Attributes") or "").partition(":")
    if context.get_request_header(0, "X-Amzn-SageMaker-Session-Id") == "NEW_SESSION":
        context.set_response_header(0, "X-Amzn-SageMaker-New-Session-Id", "s1; Expires=2100-01-01T00:00:00Z")
    if order == "await":
        with open(value) as fifo:
            fifo.read()
    if order == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    return str(os.getpid()), "text/plain"
"#;

fn in_session(place: &SessionPlace, attributes: &str) -> InvokeRequest {
    InvokeRequest { session_id: Some("s1".into()), session_place: Some(place.clone()), ..order(attributes) }
}

async fn open(scene: &Scene) -> (SessionPlace, String) {
    let request = InvokeRequest { session_id: Some("NEW_SESSION".into()), ..order("pid") };
    let opened = scene.invoke(request).await.unwrap();
    (opened.answer.session_place.clone().expect("a session was opened"), text(&opened))
}

fn plan(scene: &Scene, version: &str) -> VariantPlan {
    VariantPlan {
        replicas: 2,
        workers: 2,
        ..variant("AllTraffic", &scene.model_with_script(version, SCRIPT))
    }
}

#[tokio::test]
async fn a_session_stays_with_its_worker_and_waits_for_it() {
    let scene = Scene::new();
    scene.serve(1, vec![plan(&scene, "one")]).await;
    let (place, pid) = open(&scene).await;
    for _ in 0..20 {
        // Others use the same workers meanwhile.
        let (own, _) = tokio::join!(scene.invoke(in_session(&place, "pid")), scene.ask("pid"));
        assert_eq!(text(&own.unwrap()), pid);
    }
    assert_eq!(scene.invoke(order("pid")).await.unwrap().answer.session_place, None);
    let gate = scene.fifo("gate");
    let held = scene.invoke(in_session(&place, &format!("await:{}", gate.display())));
    let waiting = async {
        let open = tokio::task::spawn_blocking(move || std::fs::OpenOptions::new().write(true).open(gate));
        let opened = open.await.unwrap().unwrap();
        let mut next = std::pin::pin!(scene.invoke(in_session(&place, "pid")));
        tokio::select! {
            biased;
            _ = &mut next => panic!("another worker has answered"),
            // Three workers are free all the while.
            _ = scene.ask("pid") => {}
        }
        drop(opened);
        text(&next.await.unwrap())
    };
    let (held, next) = tokio::join!(held, waiting);
    assert_eq!((text(&held.unwrap()), next), (pid.clone(), pid));
}

#[tokio::test]
async fn a_session_ends_with_its_worker_and_with_its_fleet() {
    let scene = Scene::new();
    scene.serve(1, vec![plan(&scene, "one")]).await;
    let lost = |result: Result<serving::InvokeResponse, InvokeError>| matches!(result, Err(InvokeError::NoSuchSession { session }) if session == "s1");
    let (place, _) = open(&scene).await;
    scene.invoke(in_session(&place, "crash")).await.unwrap_err();
    assert!(lost(scene.invoke(in_session(&place, "pid")).await));

    let (place, pid) = open(&scene).await;
    assert_eq!(text(&scene.invoke(in_session(&place, "pid")).await.unwrap()), pid);
    scene.serve(2, vec![plan(&scene, "two")]).await;
    assert!(lost(scene.invoke(in_session(&place, "pid")).await));
    let renamed = VariantPlan { name: "Other".into(), ..plan(&scene, "three") };
    scene.serve(3, vec![renamed]).await;
    assert!(lost(scene.invoke(in_session(&place, "pid")).await));
}
