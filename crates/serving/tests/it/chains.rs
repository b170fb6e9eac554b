//! Replicas of several containers: in a row, by name, and as a unit.

use serving::{
    Composition, ContainerPlan, ContainersPlan, EndpointPhase, InvokeError, InvokeRequest, TargetProblem,
    VariantPlan,
};

use crate::scene::{ENDPOINT, Scene, text, variant};

/// Wraps what it gets, and ends, fails or streams when it is told so by name.
const SCRIPT: &str = r#"
import os, signal

def model_fn(model_dir):
    with open(os.path.join(model_dir, "version")) as file:
        return file.read()

def transform_fn(model, body, content_type, accept):
    text = body if isinstance(body, str) else bytes(body).decode()
    if text == "crash " + model:
        os.kill(os.getpid(), signal.SIGKILL)
    if text == "raise " + model:
        raise ValueError("no luck")
    if text.startswith("stream"):
        return (piece for piece in ("stream", " ", model)), "text/plain"
    return "{}({} {})".format(model, text, content_type), "text/" + model
"#;

fn plan(scene: &Scene, names: &[&str], is_direct: bool) -> VariantPlan {
    let folders: Vec<_> = names.iter().map(|name| scene.model_with_script(name, SCRIPT)).collect();
    let mut plan = variant("AllTraffic", &folders[0]);
    plan.launch["parts"] = serde_json::json!(folders);
    let container = |name: &&str| ContainerPlan { name: (*name).to_owned(), workers: 1 };
    let containers = names.iter().map(container).collect();
    plan.composition = Composition::Containers(ContainersPlan { containers, is_direct });
    plan
}

fn request(body: &'static str, container: Option<&str>) -> InvokeRequest {
    InvokeRequest {
        content_type: Some("text/csv".into()),
        target_container: container.map(str::to_owned),
        body: body.into(),
        ..InvokeRequest::default()
    }
}

#[tokio::test]
async fn the_answer_of_each_is_the_request_of_the_next() {
    let scene = Scene::new();
    scene.serve(1, vec![plan(&scene, &["one", "two", "three"], false)]).await;
    let answer = scene.invoke(request("x", None)).await.unwrap();
    assert_eq!(text(&answer), "three(two(one(x text/csv) text/one) text/two)");
    assert_eq!(answer.answer.content_type.as_deref(), Some("text/three"));
    assert_eq!(answer.answer.container.as_deref(), Some("three"));
    // A streamed answer is collected for the next container; the last one's streams through.
    let answer = scene.invoke(request("stream", None)).await.unwrap();
    assert_eq!(text(&answer), "stream three");
    let failed = scene.invoke(request("raise one", None)).await.unwrap_err();
    let InvokeError::ModelError { answer, .. } = failed else { panic!("{failed:?}") };
    assert_eq!((answer.status, answer.container.as_deref()), (500, Some("one")));
    let named = scene.invoke(request("x", Some("one"))).await.unwrap_err();
    assert!(matches!(named, InvokeError::WrongTarget { problem: TargetProblem::NotDirect }), "{named:?}");
    let metrics = &scene.data_plane.metrics(ENDPOINT).unwrap()[0];
    let counts: Vec<_> =
        metrics.containers.iter().map(|one| (one.container.as_str(), one.latencies.count())).collect();
    assert_eq!(counts, [("one", 3), ("three", 2), ("two", 2)]);
    scene.data_plane.remove(ENDPOINT).await;
    assert!(serving::Launcher::running(&*scene.launcher).is_empty());
}

#[tokio::test]
async fn a_request_may_name_its_container() {
    let scene = Scene::new();
    scene.serve(1, vec![plan(&scene, &["one", "two"], true)]).await;
    for name in ["one", "two"] {
        let answer = scene.invoke(request("x", Some(name))).await.unwrap();
        assert_eq!(text(&answer), format!("{name}(x text/csv)"));
    }
    for (name, problem) in [
        (None, TargetProblem::NoContainerNamed),
        (Some("three"), TargetProblem::NoSuchContainer("three".into())),
    ] {
        let refused = scene.invoke(request("x", name)).await.unwrap_err();
        assert!(matches!(refused, InvokeError::WrongTarget { problem: found } if found == problem));
    }
}

#[tokio::test]
async fn a_container_that_ends_is_restarted_while_requests_wait() {
    let scene = Scene::new();
    scene.serve(1, vec![plan(&scene, &["one", "two"], false)]).await;
    let crashed = scene.invoke(request("crash one", None)).await.unwrap_err();
    let InvokeError::ContainerLost { message, .. } = crashed else { panic!("{crashed:?}") };
    assert!(message.starts_with("container one: "), "{message}");
    assert_eq!(text(&scene.invoke(request("x", None)).await.unwrap()), "two(one(x text/csv) text/one)");
    // A host that is killed takes the replica out of service until it is back.
    let victim = serving::Launcher::running(&*scene.launcher).into_iter().find(|id| id.contains("-c1x"));
    scene.launcher.kill(&victim.unwrap());
    scene.wait_for(|status| status.last_failure.is_some()).await;
    assert_eq!(text(&scene.invoke(request("x", None)).await.unwrap()), "two(one(x text/csv) text/one)");
    let status = scene.data_plane.watch(ENDPOINT).unwrap().borrow().clone();
    assert!(status.last_failure.unwrap().starts_with("Container two: "));
}

#[tokio::test]
async fn a_container_that_does_not_start_fails_all_and_leaves_nothing() {
    let scene = Scene::new();
    let mut plan = plan(&scene, &["one", "two"], false);
    scene.model_with_script("two", "raise ValueError('no weights')");
    plan.startup_timeout_seconds = 30.0;
    let status = scene.apply(1, vec![plan]).await;
    let EndpointPhase::Failed { reason } = status.phase else { panic!("{status:?}") };
    assert!(reason.starts_with("Container two: ") && reason.contains("no weights"), "{reason}");
    scene.data_plane.remove(ENDPOINT).await;
    assert!(serving::Launcher::running(&*scene.launcher).is_empty());
}

#[tokio::test]
async fn a_new_data_plane_takes_all_containers_up() {
    let mut scene = Scene::new();
    let plan = plan(&scene, &["one", "two"], false);
    scene.serve(1, vec![plan.clone()]).await;
    let mut before = serving::Launcher::running(&*scene.launcher);
    before.sort();
    scene.restart_data_plane();
    scene.serve(1, vec![plan]).await;
    let mut after = serving::Launcher::running(&*scene.launcher);
    after.sort();
    assert_eq!((before.len(), &before), (2, &after));
    assert_eq!(text(&scene.invoke(request("x", None)).await.unwrap()), "two(one(x text/csv) text/one)");
}
