//! Variants without a replica, what is counted of invocations, and endpoints that come back.

use serving::{EndpointPhase, EndpointPlan, VariantPlan};

use crate::scene::{ENDPOINT, Scene, order, variant};

#[tokio::test]
async fn a_request_that_meets_no_replica_is_held_and_rings() {
    let scene = Scene::new();
    let plan = |replicas| VariantPlan { replicas, ..variant("AllTraffic", &scene.model("one")) };
    scene.serve(1, vec![plan(0)]).await;
    scene.data_plane.set_wakes(ENDPOINT, "AllTraffic", true);
    let wake = async {
        scene.settings.wake_bell.notified().await;
        let activity = &scene.data_plane.activity()[0];
        assert_eq!((activity.in_flight, activity.wanted_replicas, activity.healthy_replicas), (1, 0, 0));
        scene.serve(1, vec![plan(1)]).await;
    };
    let (answer, ()) = tokio::join!(scene.ask("version"), wake);
    assert_eq!(answer, "one");
    let metrics = scene.data_plane.variant_metrics(ENDPOINT, "AllTraffic").unwrap();
    assert_eq!((metrics.invocations, metrics.ended, metrics.in_flight, metrics.errors_5xx), (1, 1, 0, 0));
    assert_eq!((metrics.model_latencies.count(), metrics.overhead_latencies.count()), (1, 1));
    let [place] = &scene.data_plane.replica_places()[..] else { panic!("one replica runs") };
    assert_eq!((&*place.endpoint, &*place.variant), (ENDPOINT, "AllTraffic"));
    assert!(scene.launcher_knows(&place.id));
}

#[tokio::test]
async fn errors_of_the_model_are_told_from_answers() {
    let scene = Scene::new();
    scene.serve(1, vec![variant("AllTraffic", &scene.model("one"))]).await;
    scene.ask("version").await;
    scene.invoke(order("raise:x")).await.unwrap_err();
    scene.invoke(order("crash")).await.unwrap_err();
    let metrics = scene.data_plane.variant_metrics(ENDPOINT, "AllTraffic").unwrap();
    assert_eq!((metrics.invocations, metrics.ended, metrics.in_flight), (3, 3, 0));
    assert_eq!((metrics.errors_5xx, metrics.model_errors, metrics.errors_4xx), (2, 2, 0));
    // A worker that was lost has no latency.
    assert_eq!(metrics.model_latencies.count(), 2);
}

#[tokio::test]
async fn an_endpoint_that_served_is_back_with_its_first_replica() {
    let mut scene = Scene::new();
    let model = scene.model("one");
    scene.serve(1, vec![variant("AllTraffic", &model)]).await;
    scene.restart_data_plane();
    // The second replica cannot start; before, that would have taken the endpoint out of service.
    std::fs::write(model.join("code/inference.py"), "raise RuntimeError('no luck')\n").unwrap();
    let variants = vec![VariantPlan { replicas: 2, ..variant("AllTraffic", &model) }];
    let plan = EndpointPlan { endpoint: ENDPOINT.into(), generation: 1, variants };
    let mut status = scene.data_plane.resume(plan).unwrap();
    let settled = status.wait_for(|status| status.has_settled(1)).await.unwrap().clone();
    assert_eq!(settled.phase, EndpointPhase::InService);
    assert_eq!(scene.ask("version").await, "one");
    scene.wait_for(|status| status.last_failure.as_ref().is_some_and(|text| text.contains("no luck"))).await;
    assert_eq!(scene.ask("version").await, "one");
}
