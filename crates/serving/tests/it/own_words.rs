//! Containers that speak a protocol of inference by themselves.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};
use serde_json::Value;
use serving::{InvokeError, InvokeRequest, SpokenPath, SpokenProtocol, SpokenRequest, VariantPlan};

use crate::scene::{Scene, order, text, variant};

fn request(protocol: SpokenProtocol, body: &'static str, is_required: bool) -> InvokeRequest {
    let words = SpokenRequest {
        protocol,
        method: Method::POST,
        path: SpokenPath::Model { before: "/v2/models/", name: "outer".into(), after: "/infer" },
        headers: vec![(HeaderName::from_static("x-sent"), HeaderValue::from_static("along"))],
        answer_headers: &["x-own", "x-other"],
        body: body.into(),
        is_required,
    };
    InvokeRequest { spoken: Some(Arc::new(words)), ..order("pid") }
}

async fn serving(scene: &Scene, version: &str, is_container: bool) {
    let mut plan: VariantPlan = variant("AllTraffic", &scene.model(version));
    if is_container {
        plan.launch["container"] = true.into();
    }
    scene.serve(1, vec![plan]).await;
}

#[tokio::test]
async fn they_get_requests_as_they_are_under_their_own_name() {
    let scene = Scene::new();
    serving(&scene, "own-words", true).await;
    let answer = scene.invoke(request(SpokenProtocol::InferenceV2, "tensors", true)).await.unwrap();
    let seen: Value = serde_json::from_str(&text(&answer)).unwrap();
    for (name, value) in [
        ("path", "/v2/models/inner/infer"),
        ("body", "tensors"),
        ("X-Sent", "along"),
        ("Content-Length", "7"),
    ] {
        assert_eq!(seen[name], value, "{seen}");
    }
    let back = answer.answer.spoken_headers.unwrap();
    assert_eq!(back, [(HeaderName::from_static("x-own"), HeaderValue::from_static("back"))]);
    let failed = scene.invoke(request(SpokenProtocol::InferenceV2, "fail", true)).await.unwrap_err();
    let InvokeError::ModelError { answer, .. } = failed else { panic!("{failed:?}") };
    assert!(answer.status == 418 && answer.spoken_headers.is_some());

    // It answers the question for other protocols too, but not in their words.
    let refused = scene.invoke(request(SpokenProtocol::OpenAi, "", true)).await.unwrap_err();
    assert!(matches!(refused, InvokeError::NotSpoken), "{refused:?}");
    let common = scene.invoke(request(SpokenProtocol::OpenAi, "", false)).await.unwrap();
    assert!(common.answer.spoken_headers.is_none() && text(&common).parse::<u32>().is_ok());
}

#[tokio::test]
async fn others_get_the_common_request_or_none() {
    for is_container in [true, false] {
        let scene = Scene::new();
        serving(&scene, "one", is_container).await;
        let refused = scene.invoke(request(SpokenProtocol::InferenceV2, "", true)).await.unwrap_err();
        assert!(matches!(refused, InvokeError::NotSpoken), "{refused:?}");
        let common = scene.invoke(request(SpokenProtocol::InferenceV2, "", false)).await.unwrap();
        assert!(text(&common).parse::<u32>().is_ok(), "{}", text(&common));
    }
}
