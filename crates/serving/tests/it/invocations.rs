//! Bytes, headers, routing, streams, limits and counters.

use bytes::Bytes;
use serving::{InvokeError, InvokeRequest, VariantPlan};

use crate::scene::{ENDPOINT, Scene, order, text, variant};

#[tokio::test]
async fn bodies_and_attributes_pass_untouched() {
    let scene = Scene::new();
    scene.serve(1, vec![variant("AllTraffic", &scene.model("one"))]).await;
    for size in [0, 1, 65_499, 65_536, 200_000, 5 * 1024 * 1024] {
        let body: Vec<u8> = (0..size).map(|_| rand::random()).collect();
        let request = InvokeRequest {
            body: Bytes::from(body.clone()),
            content_type: Some("application/x-random".into()),
            custom_attributes: Some("echo: ünïcödé \"quoted\"\u{1}".into()),
            ..InvokeRequest::default()
        };
        let response = scene.invoke(request).await.unwrap();
        assert!(response.body == body, "a body of {size} bytes came back changed");
        assert_eq!(response.answer.status, 200);
        assert_eq!(response.answer.content_type.as_deref(), Some("application/x-random"));
        assert_eq!(response.answer.custom_attributes.as_deref(), Some("did echo"));
        assert_eq!(response.answer.invoked_variant, "AllTraffic");
    }
    let metrics = &scene.data_plane.metrics(ENDPOINT).unwrap()[0];
    assert_eq!((metrics.invocations, metrics.errors_5xx), (6, 0));
    assert!(metrics.model_latency_microseconds > 0);
}

#[tokio::test]
async fn missing_headers_get_the_toolkits_defaults() {
    let scene = Scene::new();
    scene.serve(1, vec![variant("AllTraffic", &scene.model("one"))]).await;
    assert_eq!(scene.ask("accept").await, "application/json|application/json");
    let request = InvokeRequest {
        accept: Some("text/csv, */*".into()),
        content_type: Some("text/plain".into()),
        ..order("accept")
    };
    let response = scene.invoke(request).await.unwrap();
    assert_eq!(text(&response), "text/csv, */*|text/plain");
    assert_eq!(response.answer.content_type.as_deref(), Some("text/csv"));
}

#[tokio::test]
async fn weights_and_target_variants_decide() {
    let scene = Scene::new();
    let weighted = |name: &str, weight| VariantPlan { weight, ..variant(name, &scene.model(name)) };
    scene.serve(1, vec![weighted("one", 1.0), weighted("three", 3.0), weighted("none", 0.0)]).await;
    let mut counts = std::collections::BTreeMap::new();
    for _ in 0..400 {
        let response = scene.invoke(order("version")).await.unwrap();
        assert_eq!(text(&response), response.answer.invoked_variant);
        *counts.entry(response.answer.invoked_variant).or_insert(0) += 1;
    }
    // 300 expected; five standard deviations are 43.
    assert!((257..=343).contains(&counts["three"]), "{counts:?}");
    assert!(!counts.contains_key("none"), "{counts:?}");

    let targeted = |name: &str| InvokeRequest { target_variant: Some(name.into()), ..order("version") };
    assert_eq!(text(&scene.invoke(targeted("none")).await.unwrap()), "none");
    let unknown = scene.invoke(targeted("other")).await.unwrap_err();
    assert!(matches!(unknown, InvokeError::NoSuchVariant { .. }), "{unknown:?}");

    let weights = vec![("one".to_owned(), 0.0), ("three".to_owned(), 0.0), ("none".to_owned(), 2.0)];
    scene.data_plane.set_weights(ENDPOINT, weights).await.unwrap();
    for _ in 0..20 {
        assert_eq!(scene.ask("version").await, "none");
    }
    scene.data_plane.set_weights(ENDPOINT, vec![("other".into(), 1.0)]).await.unwrap_err();
    scene.data_plane.set_weights(ENDPOINT, vec![("none".into(), 0.0)]).await.unwrap();
    let unweighted = scene.invoke(order("version")).await.unwrap_err();
    assert!(matches!(unweighted, InvokeError::NotInService { .. }), "{unweighted:?}");
}

#[tokio::test]
async fn streams_come_in_pieces() {
    let scene = Scene::new();
    scene.serve(1, vec![variant("AllTraffic", &scene.model("one"))]).await;
    let mut stream = scene.data_plane.invoke_stream(ENDPOINT, order("stream:3")).await.unwrap();
    assert_eq!(stream.answer.content_type.as_deref(), Some("text/plain"));
    let mut pieces = Vec::new();
    while let Some(piece) = stream.next_chunk().await {
        pieces.push(piece.unwrap());
    }
    assert_eq!(pieces, ["piece 0;", "piece 1;", "piece 2;"]);
    // A caller that wants it whole gets it whole, and one that wants pieces of a whole answer gets one.
    assert_eq!(scene.ask("stream:2").await, "piece 0;piece 1;");
    let mut whole = scene.data_plane.invoke_stream(ENDPOINT, order("version")).await.unwrap();
    assert_eq!(whole.next_chunk().await.unwrap().unwrap(), "one");
    assert!(whole.next_chunk().await.is_none());
}

#[tokio::test]
async fn a_stream_can_break_or_be_left() {
    let scene = Scene::new();
    scene.serve(1, vec![variant("AllTraffic", &scene.model("one"))]).await;
    let mut stream = scene.data_plane.invoke_stream(ENDPOINT, order("broken:1")).await.unwrap();
    assert_eq!(stream.next_chunk().await.unwrap().unwrap(), "piece 0;");
    let error = stream.next_chunk().await.unwrap().unwrap_err();
    assert!(
        matches!(&error, InvokeError::StreamBroken { message, .. } if message == "RuntimeError: out of pieces")
    );
    assert!(stream.next_chunk().await.is_none());
    let process = scene.ask("pid").await;

    // This one would go on for hours; leaving it frees the only worker, which stays the same.
    let mut endless = scene.data_plane.invoke_stream(ENDPOINT, order("stream:1000000000")).await.unwrap();
    endless.next_chunk().await.unwrap().unwrap();
    drop(endless);
    assert_eq!(scene.ask("pid").await, process);
}

#[tokio::test]
async fn an_exception_is_a_model_error_with_its_traceback() {
    let scene = Scene::new();
    scene.serve(1, vec![variant("AllTraffic", &scene.model("one"))]).await;
    let error = scene.invoke(order("raise:luck")).await.unwrap_err();
    let InvokeError::ModelError { answer, body, replica } = error else { panic!("{error:?}") };
    assert_eq!((answer.status, answer.content_type.as_deref()), (500, Some("application/json")));
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&body["code"], &body["message"]), (&500.into(), &"bad luck".into()));
    assert!(body["traceback"].as_str().unwrap().contains("in transform_fn"), "{body}");
    assert!(scene.launcher_knows(&replica));
    assert_eq!(scene.data_plane.metrics(ENDPOINT).unwrap()[0].errors_5xx, 1);
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let settings = serving::DataPlaneSettings {
        max_request_bytes: 1000,
        max_response_bytes: 100,
        ..crate::scene::quick_settings()
    };
    let scene = Scene::with_settings(settings);
    scene.serve(1, vec![variant("AllTraffic", &scene.model("one"))]).await;
    let sized = |size: usize| InvokeRequest { body: vec![7; size].into(), ..order("echo") };
    assert_eq!(scene.invoke(sized(100)).await.unwrap().body.len(), 100);
    for (size, expected) in [(1001, "request body"), (101, "answer")] {
        let error = scene.invoke(sized(size)).await.unwrap_err();
        assert!(matches!(error, InvokeError::TooLarge { what, .. } if what == expected), "{error:?}");
    }
    let error = scene.invoke(order("stream:50")).await.unwrap_err();
    assert!(matches!(error, InvokeError::TooLarge { what: "answer", .. }), "{error:?}");
    // Each left its connection in a state that could not be used on; the endpoint has recovered.
    assert_eq!(scene.ask("version").await, "one");
}

#[tokio::test]
async fn unknown_endpoints_are_named() {
    let scene = Scene::new();
    let error = scene.invoke(order("version")).await.unwrap_err();
    assert!(error.to_string().contains(ENDPOINT), "{error}");
    assert!(scene.data_plane.metrics(ENDPOINT).is_none() && scene.data_plane.watch(ENDPOINT).is_none());
    scene.data_plane.remove(ENDPOINT).await;
}
