//! Replicas that speak HTTP: a real server in another process, with all that such servers do.

use std::time::{Duration, Instant};

use serving::{DataPlaneSettings, EndpointPhase, InvokeError, InvokeRequest, Launcher, VariantPlan};

use crate::scene::{ENDPOINT, Scene, order, quick_settings, text, variant};

/// A container with a model of this version.
fn container(scene: &Scene, version: &str) -> VariantPlan {
    let mut plan = variant("AllTraffic", &scene.model(version));
    plan.launch["container"] = true.into();
    plan
}

#[tokio::test]
async fn headers_and_bodies_pass_both_ways() {
    let scene = Scene::new();
    scene.serve(1, vec![container(&scene, "one")]).await;
    let request = InvokeRequest {
        content_type: Some("text/csv".into()),
        accept: Some("application/json".into()),
        custom_attributes: Some("headers".into()),
        inference_id: Some("i1".into()),
        session_id: Some("NEW_SESSION".into()),
        body: "1,2".into(),
        ..InvokeRequest::default()
    };
    let answer = scene.invoke(request).await.unwrap();
    assert_eq!(answer.answer.content_type.as_deref(), Some("application/json"));
    let seen: serde_json::Value = serde_json::from_str(&text(&answer)).unwrap();
    for (name, value) in [
        ("path", "/invocations"),
        ("Content-Type", "text/csv"),
        ("Accept", "application/json"),
        ("X-Model-Inference-Id", "i1"),
        ("X-Model-Session-Id", "NEW_SESSION"),
        ("Content-Length", "3"),
    ] {
        assert_eq!(seen[name], value, "{seen}");
    }
    let large = vec![7; 3 << 20];
    let request = InvokeRequest { body: large.clone().into(), ..order("echo") };
    let answer = scene.invoke(request).await.unwrap();
    assert_eq!(answer.answer.custom_attributes.as_deref(), Some("did echo"));
    assert_eq!(answer.body, large);
    let answer = scene.invoke(order("session")).await.unwrap().answer;
    assert_eq!(
        (answer.new_session_id.as_deref(), answer.closed_session_id.as_deref()),
        (Some("s1"), Some("s0"))
    );

    let failed = scene.invoke(order("raise:input")).await.unwrap_err();
    let InvokeError::ModelError { answer, body, .. } = failed else { panic!("{failed:?}") };
    assert_eq!((answer.status, &body[..]), (418, &b"bad input"[..]));

    let known = scene.data_plane.get(ENDPOINT, "/known").await.unwrap().unwrap();
    assert_eq!((known.0, &known.1[..]), (200, &b"known"[..]));
    assert_eq!(scene.data_plane.get(ENDPOINT, "/other").await.unwrap().unwrap().0, 404);
}

#[tokio::test]
async fn answers_are_streamed_and_a_broken_stream_is_said() {
    let settings = DataPlaneSettings { http_requests_at_once: 1, ..quick_settings() };
    let scene = Scene::with_settings(settings);
    scene.serve(1, vec![container(&scene, "one")]).await;
    let mut stream = scene.data_plane.invoke_stream(ENDPOINT, order("stream:3")).await.unwrap();
    let mut pieces = Vec::new();
    while let Some(piece) = stream.next_chunk().await {
        pieces.extend_from_slice(&piece.unwrap());
    }
    assert_eq!(pieces, b"piece 0;piece 1;piece 2;");
    drop(stream);
    let broken = scene.invoke(order("broken:2")).await.unwrap_err();
    assert!(matches!(broken, InvokeError::ContainerLost { .. }), "{broken:?}");
    // Whoever goes away in the middle leaves the only place as it was.
    drop(scene.data_plane.invoke_stream(ENDPOINT, order("stream:2")).await.unwrap());
    assert_eq!(scene.ask("stream:2").await, "piece 0;piece 1;");
}

#[tokio::test]
async fn a_request_that_is_dropped_is_not_sent_again_and_costs_no_place() {
    let settings = DataPlaneSettings { http_requests_at_once: 1, ..quick_settings() };
    let scene = Scene::with_settings(settings);
    scene.serve(1, vec![container(&scene, "one")]).await;
    for _ in 0..3 {
        let dropped = scene.invoke(order("drop")).await.unwrap_err();
        assert!(matches!(dropped, InvokeError::ContainerLost { .. }), "{dropped:?}");
    }
    scene.ask("pid").await;
    let metrics = &scene.data_plane.metrics(ENDPOINT).unwrap()[0];
    assert_eq!((metrics.invocations, metrics.errors_5xx), (4, 3));
}

#[tokio::test]
async fn servers_that_close_each_connection_or_serve_one_at_a_time_are_served() {
    let scene = Scene::new();
    scene.serve(1, vec![container(&scene, "closing")]).await;
    let first = scene.ask("pid").await;
    assert_eq!(scene.ask("pid").await, first);
    scene.serve(2, vec![container(&scene, "single")]).await;
    // The second of them has a connection of its own, which is served once the first is let go.
    let (one, other) = tokio::join!(scene.ask("pid"), scene.ask("pid"));
    assert_eq!(one, other);
}

#[tokio::test]
async fn a_container_that_ends_is_started_again_and_requests_wait_for_it() {
    let scene = Scene::new();
    scene.serve(1, vec![container(&scene, "one")]).await;
    let first = scene.ask("pid").await;
    let crashed = scene.invoke(order("crash")).await.unwrap_err();
    assert!(matches!(crashed, InvokeError::ContainerLost { .. }), "{crashed:?}");
    assert_ne!(scene.ask("pid").await, first);
    let status = scene.data_plane.watch(ENDPOINT).unwrap().borrow().clone();
    assert!(status.last_failure.unwrap().contains("exit status: 3"));
}

#[tokio::test]
async fn a_container_that_fails_its_pings_never_serves_or_is_replaced() {
    let scene = Scene::new();
    let mut plan = container(&scene, "sick");
    let ping = scene.path("model-sick/ping");
    std::fs::write(&ping, "503").unwrap();
    plan.startup_timeout_seconds = 5.0;
    let status = scene.apply(1, vec![plan.clone()]).await;
    let EndpointPhase::Failed { reason } = status.phase else { panic!("{status:?}") };
    for part in ["variant AllTraffic did not pass the ping health check within 5 seconds", "status 503"] {
        assert!(reason.contains(part), "{reason}");
    }
    assert!(scene.launcher.running().is_empty());

    std::fs::remove_file(&ping).unwrap();
    scene.serve(2, vec![VariantPlan { startup_timeout_seconds: 60.0, ..plan }]).await;
    let first = scene.ask("pid").await;
    std::fs::write(&ping, "500").unwrap();
    scene.wait_for(|status| status.last_failure.is_some()).await;
    std::fs::remove_file(&ping).unwrap();
    assert_ne!(scene.ask("pid").await, first);
}

#[tokio::test]
async fn a_container_that_ends_at_once_says_its_last_words() {
    let scene = Scene::new();
    let plan = container(&scene, "ending");
    std::fs::write(scene.path("model-ending/end"), "").unwrap();
    let status = scene.apply(1, vec![plan]).await;
    let EndpointPhase::Failed { reason } = status.phase else { panic!("{status:?}") };
    assert!(
        reason.contains("The container ended before it was ready")
            && reason.contains("the weights are missing"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_time_limit_ends_the_request_and_not_the_container() {
    let scene = Scene::new();
    let fifo = scene.fifo("never-opened");
    let plan = VariantPlan { model_timeout_seconds: 0.3, ..container(&scene, "one") };
    scene.serve(1, vec![plan]).await;
    let before = scene.ask("pid").await;
    let error = scene.invoke(order(&format!("await:{}", fifo.display()))).await.unwrap_err();
    assert!(matches!(error, InvokeError::Timeout { .. }), "{error:?}");
    assert_eq!(scene.ask("pid").await, before);
}

#[tokio::test]
async fn a_new_data_plane_takes_containers_up() {
    let mut scene = Scene::new();
    let plan = container(&scene, "one");
    scene.serve(1, vec![plan.clone()]).await;
    let first = scene.ask("pid").await;
    scene.restart_data_plane();
    let begun = Instant::now();
    scene.serve(1, vec![plan]).await;
    assert_eq!(scene.ask("pid").await, first);
    assert!(begun.elapsed() < Duration::from_secs(20));
}
