//! Fleets that replace each other, grow, shrink and go.

use std::sync::atomic::{AtomicBool, Ordering};

use serving::{EndpointPhase, EndpointPlan, InvokeError, Launcher, VariantPlan};

use crate::scene::{ENDPOINT, Scene, order, text, variant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_fails_no_request() {
    let scene = Scene::new();
    let plan = |version: &str| VariantPlan { workers: 2, ..variant("AllTraffic", &scene.model(version)) };
    scene.serve(1, vec![plan("old")]).await;
    let before = scene.launcher.running();
    let updated = AtomicBool::new(false);
    let callers = async {
        let (mut answered, mut new_ones) = (0, 0);
        while new_ones < 20 {
            let update_was_over = updated.load(Ordering::Acquire);
            let ask = || scene.invoke(order("version"));
            let (first, second, third, fourth) = tokio::join!(ask(), ask(), ask(), ask());
            for result in [first, second, third, fourth] {
                let version = text(&result.expect("a request failed during the update"));
                assert!(version == "new" || !update_was_over, "the old fleet answered after the update");
                new_ones += usize::from(version == "new");
            }
            answered += 4;
        }
        answered
    };
    let update = async {
        scene.serve(2, vec![plan("new")]).await;
        updated.store(true, Ordering::Release);
    };
    let (answered, ()) = tokio::join!(callers, update);
    for id in &before {
        scene.launcher.exited(id).await;
    }
    assert_eq!(scene.launcher.running().len(), 1);
    let metrics = &scene.data_plane.metrics(ENDPOINT).unwrap()[0];
    assert_eq!((metrics.invocations, metrics.errors_5xx), (answered, 0));
}

#[tokio::test]
async fn a_running_request_is_answered_by_the_old_fleet() {
    let scene = Scene::new();
    let fifo = scene.fifo("gate");
    scene.serve(1, vec![variant("AllTraffic", &scene.model("old"))]).await;
    let old = scene.launcher.running();
    let running = scene.invoke(order(&format!("await:{}", fifo.display())));
    let update = async {
        let gate = fifo.clone();
        let gate = tokio::task::spawn_blocking(move || std::fs::OpenOptions::new().write(true).open(gate));
        let gate = gate.await.unwrap().unwrap();
        scene.serve(2, vec![variant("AllTraffic", &scene.model("new"))]).await;
        assert_eq!(scene.ask("version").await, "new");
        assert!(scene.launcher.running().contains(&old[0]), "the old fleet was ended too early");
        std::io::Write::write_all(&mut &gate, b"finished").unwrap();
    };
    let (answered, ()) = tokio::join!(running, update);
    assert_eq!(text(&answered.unwrap()), "finished");
    scene.launcher.exited(&old[0]).await;
}

#[tokio::test]
async fn a_failed_update_leaves_the_old_fleet_in_service() {
    let scene = Scene::new();
    scene.serve(1, vec![variant("AllTraffic", &scene.model("old"))]).await;
    let broken = scene.model_with_script("broken", "raise RuntimeError('no luck')\n");
    let status = scene.apply(2, vec![variant("AllTraffic", &broken)]).await;
    let EndpointPhase::UpdateFailed { reason } = &status.phase else { panic!("{status:?}") };
    assert!(reason.contains("RuntimeError: no luck"), "{reason}");
    assert_eq!((status.generation, status.wanted_generation), (1, 2));
    assert_eq!(status.variants[0].healthy_replicas, 1);
    assert_eq!(scene.ask("version").await, "old");
}

#[tokio::test]
async fn replicas_come_and_go_in_place() {
    let scene = Scene::new();
    scene.serve(1, vec![variant("AllTraffic", &scene.model("one"))]).await;
    let first = scene.launcher.running();
    scene.data_plane.set_replicas(ENDPOINT, "AllTraffic", 3).await.unwrap();
    scene.wait_for(|status| status.variants[0].healthy_replicas == 3).await;
    let mut processes = std::collections::BTreeSet::new();
    // One that gets a third of the requests by chance is missed by 60 in a row once in thirty thousand million runs.
    for _ in 0..60 {
        processes.insert(scene.ask("pid").await);
    }
    assert_eq!(processes.len(), 3, "requests go to {processes:?} only");
    let grown = scene.launcher.running();
    scene.data_plane.set_replicas(ENDPOINT, "AllTraffic", 1).await.unwrap();
    for id in grown.iter().filter(|id| **id != first[0]) {
        scene.launcher.exited(id).await;
    }
    assert_eq!(scene.launcher.running(), first);
    assert_eq!(scene.ask("version").await, "one");
    let error = scene.data_plane.set_replicas(ENDPOINT, "other", 1).await.unwrap_err();
    assert!(error.to_string().contains("other"), "{error}");
}

#[tokio::test]
async fn an_endpoint_can_be_removed_and_made_again() {
    let scene = Scene::new();
    let model = scene.model("one");
    scene.serve(1, vec![variant("AllTraffic", &model)]).await;
    let first = scene.launcher.running();
    let mut status = scene.data_plane.watch(ENDPOINT).unwrap();
    let plan = EndpointPlan {
        endpoint: ENDPOINT.into(),
        generation: 1,
        variants: vec![variant("AllTraffic", &model)],
    };
    // Made again, under the same name and generation, while the first is still being stopped.
    let (_, ()) = tokio::join!(scene.data_plane.remove(ENDPOINT), async {
        let error = scene.invoke(order("version")).await.unwrap_err();
        assert!(matches!(error, InvokeError::NoSuchEndpoint { .. }), "{error:?}");
        scene.data_plane.apply(plan).unwrap();
    });
    assert_eq!(status.wait_for(|s| s.phase == EndpointPhase::Removed).await.unwrap().wanted_generation, 1);
    scene.wait_for(|status| status.phase == EndpointPhase::InService).await;
    assert_eq!(scene.ask("version").await, "one");
    let second = scene.launcher.running();
    assert_eq!(second.len(), 1);
    assert_ne!(first, second);
}
