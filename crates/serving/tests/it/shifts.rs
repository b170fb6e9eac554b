//! Two fleets side by side: shares of the requests, what is counted of each, and who is left in the end.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serving::{EndpointPhase, EndpointPlan, Launcher, Shift, VariantPlan};

use crate::scene::{ENDPOINT, Scene, order, text, variant};

fn plan(generation: u64, model: &Path) -> EndpointPlan {
    let variants = vec![VariantPlan { workers: 2, ..variant("AllTraffic", model) }];
    EndpointPlan { endpoint: ENDPOINT.into(), generation, variants }
}

/// A scene with the first generation in service, and the plans of two.
async fn two_plans() -> (Scene, EndpointPlan, EndpointPlan) {
    let scene = Scene::new();
    let (old, new) = (plan(1, &scene.model("old")), plan(2, &scene.model("new")));
    scene.serve(1, old.variants.clone()).await;
    (scene, old, new)
}

async fn shift(scene: &Scene, main: &EndpointPlan, beside: &EndpointPlan, share: f64) {
    let shift = Shift {
        main: main.clone(),
        beside: beside.clone(),
        share,
        main_has_served: false,
        beside_has_served: false,
    };
    scene.data_plane.shift(shift).unwrap().await.unwrap();
    scene.wait_for(|status| status.beside.as_ref().is_some_and(|beside| beside.is_ready)).await;
}

async fn versions(scene: &Scene, count: usize) -> BTreeMap<String, usize> {
    let mut seen = BTreeMap::new();
    for _ in 0..count {
        *seen.entry(scene.ask("version").await).or_default() += 1;
    }
    seen
}

#[tokio::test]
async fn traffic_moves_by_shares_and_back() {
    let (scene, old, new) = two_plans().await;
    let first = scene.launcher.running();
    shift(&scene, &old, &new, 0.0).await;
    assert_eq!(versions(&scene, 20).await, BTreeMap::from([("old".into(), 20)]));
    shift(&scene, &old, &new, 0.5).await;
    let seen = versions(&scene, 100).await;
    // Less than twenty of a hundred fair coins is one run in thousand millions.
    assert!(seen["old"] > 20 && seen["new"] > 20, "{seen:?}");
    // All of it; the fleet before stays as it is.
    shift(&scene, &new, &old, 0.0).await;
    assert_eq!(versions(&scene, 20).await, BTreeMap::from([("new".into(), 20)]));
    assert!(scene.launcher.running().contains(&first[0]));
    // And back, without a start.
    let both = scene.launcher.running();
    shift(&scene, &old, &new, 0.0).await;
    assert_eq!(versions(&scene, 20).await, BTreeMap::from([("old".into(), 20)]));
    assert_eq!(scene.launcher.running(), both);
    shift(&scene, &new, &old, 0.0).await;
    scene.serve(2, new.variants.clone()).await;
    scene.launcher.exited(&first[0]).await;
    assert_eq!(scene.ask("version").await, "new");
    let status = scene.data_plane.watch(ENDPOINT).unwrap().borrow().clone();
    assert_eq!((status.generation, status.beside), (2, None));
}

#[tokio::test]
async fn each_fleet_is_counted_on_its_own() {
    let (scene, old, new) = two_plans().await;
    assert_eq!(scene.data_plane.fleet_reading(ENDPOINT, 1), None);
    shift(&scene, &old, &new, 0.0).await;
    versions(&scene, 5).await;
    scene.invoke(order("raise:luck")).await.unwrap_err();
    shift(&scene, &old, &new, 1.0).await;
    versions(&scene, 3).await;
    let reading = |generation| scene.data_plane.fleet_reading(ENDPOINT, generation).unwrap();
    assert_eq!((reading(1).ended, reading(1).errors_5xx, reading(1).latencies.count()), (6, 1, 6));
    assert_eq!((reading(2).ended, reading(2).errors_5xx), (3, 0));
    let outputs = scene.data_plane.take_outputs(ENDPOINT, 2);
    assert_eq!(outputs.len(), 3);
    assert!(outputs.iter().all(|output| &*output.body == b"new"), "{outputs:?}");
    assert_eq!(scene.data_plane.take_outputs(ENDPOINT, 2), []);
    assert_eq!(scene.data_plane.take_outputs(ENDPOINT, 1).len(), 5, "an error is no answer");
    scene.serve(1, old.variants.clone()).await;
    scene.wait_for(|status| status.beside.is_none()).await;
    assert_eq!(scene.data_plane.fleet_reading(ENDPOINT, 2), None);
}

#[tokio::test]
async fn a_fleet_that_does_not_start_gets_nothing() {
    let (scene, old, _) = two_plans().await;
    let broken = plan(2, &scene.model_with_script("broken", "raise RuntimeError('no luck')\n"));
    let shift = Shift {
        main: old.clone(),
        beside: broken,
        share: 1.0,
        main_has_served: false,
        beside_has_served: false,
    };
    scene.data_plane.shift(shift).unwrap().await.unwrap();
    scene.wait_for(|status| status.beside.as_ref().is_some_and(|beside| beside.failure.is_some())).await;
    let status = scene.data_plane.watch(ENDPOINT).unwrap().borrow().clone();
    assert_eq!((status.phase, status.generation), (EndpointPhase::InService, 1));
    let beside = status.beside.unwrap();
    assert!(beside.failure.unwrap().contains("RuntimeError: no luck") && !beside.is_ready);
    assert_eq!(beside.share, 0.0);
    assert_eq!(scene.ask("version").await, "old");
    scene.serve(1, old.variants.clone()).await;
    assert_eq!(scene.launcher.running().len(), 1);
}

#[tokio::test]
async fn both_fleets_are_taken_up_by_the_next_data_plane() {
    let (mut scene, old, new) = two_plans().await;
    shift(&scene, &old, &new, 0.5).await;
    let before = scene.launcher.running();
    assert_eq!(before.len(), 2);
    scene.restart_data_plane();
    let again = Shift {
        main: old.clone(),
        beside: new.clone(),
        share: 0.5,
        main_has_served: true,
        beside_has_served: true,
    };
    scene.data_plane.shift(again).unwrap().await.unwrap();
    // Who asks at once is answered, too.
    scene.ask("version").await;
    scene.wait_for(|status| status.beside.as_ref().is_some_and(|beside| beside.is_ready)).await;
    let seen = versions(&scene, 100).await;
    assert!(seen["old"] > 20 && seen["new"] > 20, "{seen:?}");
    assert_eq!(scene.launcher.running(), before, "replicas were launched anew");
    scene.data_plane.remove(ENDPOINT).await;
    assert!(scene.launcher.running().is_empty());
}

/// Says which version it is; a start waits while its model's folder has a file `closed`.
const GATED: &str = r#"
import os, time

def model_fn(model_dir):
    while os.path.exists(os.path.join(model_dir, "closed")):
        time.sleep(0.01)
    with open(os.path.join(model_dir, "version")) as file:
        return file.read()

def transform_fn(model, body, content_type, accept, context):
    return model, "text/plain"
"#;

#[tokio::test]
async fn a_fleet_that_is_taken_up_is_ready_when_all_of_it_answers() {
    let (mut scene, old, _) = two_plans().await;
    let model = scene.model_with_script("gated", GATED);
    let with = |replicas| {
        let mut plan = plan(2, &model);
        plan.variants[0].replicas = replicas;
        plan
    };
    shift(&scene, &old, &with(1), 0.5).await;
    std::fs::write(model.join("closed"), "").unwrap();
    scene.restart_data_plane();
    let again = Shift {
        main: old.clone(),
        beside: with(2),
        share: 0.5,
        main_has_served: true,
        beside_has_served: true,
    };
    scene.data_plane.shift(again).unwrap().await.unwrap();
    // One of two is enough to go on with its share, and not to go on with the deployment.
    scene.wait_for(|status| status.beside.as_ref().is_some_and(|beside| beside.share > 0.0)).await;
    let beside = scene.data_plane.watch(ENDPOINT).unwrap().borrow().beside.clone().unwrap();
    assert_eq!((beside.variants[0].healthy_replicas, beside.is_ready), (1, false));
    std::fs::remove_file(model.join("closed")).unwrap();
    scene.wait_for(|status| status.beside.as_ref().is_some_and(|beside| beside.is_ready)).await;
    let beside = scene.data_plane.watch(ENDPOINT).unwrap().borrow().beside.clone().unwrap();
    assert_eq!(beside.variants[0].healthy_replicas, 2);
}

#[tokio::test]
async fn an_endpoint_that_does_not_come_up_again_keeps_nothing() {
    let scene = Scene::new();
    // Nothing runs any more, as after a start of the machine, and the fleet before cannot start.
    let broken = plan(1, &scene.model_with_script("broken", "raise RuntimeError('no luck')\n"));
    let shift = Shift {
        main: broken,
        beside: plan(2, &scene.model("new")),
        share: 0.5,
        main_has_served: true,
        beside_has_served: true,
    };
    scene.data_plane.shift(shift).unwrap().await.unwrap();
    scene.wait_for(|status| matches!(status.phase, EndpointPhase::Failed { .. })).await;
    let status = scene.data_plane.watch(ENDPOINT).unwrap().borrow().clone();
    assert_eq!(status.beside, None);
    assert!(scene.invoke(order("version")).await.is_err(), "what has failed answers nothing");
    scene.data_plane.remove(ENDPOINT).await;
    assert!(scene.launcher.running().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_under_load_fail_no_request() {
    let (scene, old, new) = two_plans().await;
    let is_over = AtomicBool::new(false);
    let callers = async {
        while !is_over.load(Ordering::Acquire) {
            let ask = || scene.invoke(order("version"));
            let (first, second, third) = tokio::join!(ask(), ask(), ask());
            for result in [first, second, third] {
                text(&result.expect("a request failed during the deployment"));
            }
        }
    };
    let steps = async {
        for share in [0.0, 0.1, 0.5, 1.0, 0.0, 1.0] {
            shift(&scene, &old, &new, share).await;
            versions(&scene, 5).await;
        }
        shift(&scene, &new, &old, 0.0).await;
        versions(&scene, 5).await;
        scene.serve(2, new.variants.clone()).await;
        versions(&scene, 5).await;
        is_over.store(true, Ordering::Release);
    };
    tokio::join!(callers, steps);
    let metrics = &scene.data_plane.metrics(ENDPOINT).unwrap()[0];
    assert_eq!(metrics.errors_5xx, 0);
}

#[tokio::test]
async fn replicas_are_replaced_in_batches() {
    let (scene, old, new) = two_plans().await;
    let with = |plan: &EndpointPlan, replicas| {
        let mut plan = plan.clone();
        plan.variants[0].replicas = replicas;
        plan
    };
    scene.serve(1, with(&old, 2).variants).await;
    shift(&scene, &with(&old, 2), &with(&new, 1), 0.0).await;
    shift(&scene, &with(&old, 2), &with(&new, 1), 0.5).await;
    shift(&scene, &with(&old, 1), &with(&new, 2), 0.5).await;
    let status = scene.data_plane.watch(ENDPOINT).unwrap().borrow().clone();
    assert_eq!(status.variants[0].desired_replicas, 1);
    assert_eq!(status.beside.unwrap().variants[0].healthy_replicas, 2);
    shift(&scene, &with(&new, 2), &with(&old, 1), 0.0).await;
    scene.serve(2, with(&new, 2).variants).await;
    assert_eq!(versions(&scene, 10).await, BTreeMap::from([("new".into(), 10)]));
}

#[tokio::test]
async fn a_shift_that_makes_no_sense_is_refused() {
    let (scene, old, new) = two_plans().await;
    let refused = |main: &EndpointPlan, beside: &EndpointPlan, share| {
        let shift = Shift {
            main: main.clone(),
            beside: beside.clone(),
            share,
            main_has_served: false,
            beside_has_served: false,
        };
        scene.data_plane.shift(shift).unwrap_err().to_string()
    };
    assert!(refused(&old, &old, 0.5).contains("different generations"));
    assert!(refused(&old, &new, 1.5).contains("from 0 to 1"));
    assert!(refused(&old, &new, f64::NAN).contains("from 0 to 1"));
}
