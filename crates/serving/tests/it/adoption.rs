//! A restarted server takes up the replicas that went on running.

use serving::{EndpointPhase, EndpointPlan, Launcher, VariantPlan};

use crate::scene::{ENDPOINT, Scene, variant};

#[tokio::test]
async fn running_replicas_are_taken_up() {
    let mut scene = Scene::new();
    let plan = VariantPlan { replicas: 2, ..variant("AllTraffic", &scene.model("one")) };
    scene.serve(7, vec![plan.clone()]).await;
    let before = scene.launcher.running();
    let process = scene.ask("pid").await;
    scene.restart_data_plane();
    assert_eq!(scene.launcher.running(), before, "dropping the data plane stopped replicas");
    let plan = EndpointPlan { endpoint: ENDPOINT.into(), generation: 7, variants: vec![plan] };
    let mut status = scene.data_plane.apply(plan).unwrap();
    // Who asks at once is answered, too.
    scene.ask("pid").await;
    status.wait_for(|status| status.phase == EndpointPhase::InService).await.unwrap();
    assert_eq!(scene.launcher.running(), before, "replicas were launched anew");
    let mut answered = std::collections::BTreeSet::new();
    // One of two that is chosen by chance is missed by 40 in a row once in a million million runs.
    for _ in 0..40 {
        answered.insert(scene.ask("pid").await);
    }
    assert!(answered.contains(&process), "{answered:?} without {process}");
}

#[tokio::test]
async fn a_replica_that_died_meanwhile_is_launched_anew() {
    let mut scene = Scene::new();
    let plan = VariantPlan { replicas: 2, ..variant("AllTraffic", &scene.model("one")) };
    scene.serve(1, vec![plan.clone()]).await;
    let before = scene.launcher.running();
    scene.stop_data_plane();
    scene.launcher.kill(&before[0]);
    scene.launcher.exited(&before[0]).await;
    scene.restart_data_plane();
    scene.serve(1, vec![plan]).await;
    let folders = std::fs::read_dir(scene.path("sockets")).unwrap();
    let folders: Vec<_> = folders.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let after = scene.launcher.running();
    assert!(folders.len() == 2 && after.iter().all(|id| folders.contains(id)), "{folders:?}");
    assert_eq!((after.len(), after.contains(&before[1])), (2, true), "{before:?} {after:?}");
    assert_eq!(scene.ask("version").await, "one");
}

#[tokio::test]
async fn what_nobody_wants_any_more_is_stopped() {
    let mut scene = Scene::new();
    let model = scene.model("one");
    scene.serve(1, vec![variant("AllTraffic", &model)]).await;
    let other =
        EndpointPlan { endpoint: "1/r/other".into(), generation: 1, variants: vec![variant("v", &model)] };
    let mut status = scene.data_plane.apply(other).unwrap();
    status.wait_for(|status| status.has_settled(1)).await.unwrap();
    let strays = scene.launcher.running();
    scene.restart_data_plane();
    // One endpoint comes back in a newer generation, the other not at all.
    scene.serve(2, vec![variant("AllTraffic", &model)]).await;
    scene.data_plane.stop_strays(&[]).await;
    for stray in &strays {
        scene.launcher.exited(stray).await;
    }
    assert_eq!(scene.launcher.running().len(), 1);
    assert_eq!(scene.ask("version").await, "one");
    scene.data_plane.remove(ENDPOINT).await;
    assert!(scene.launcher.running().is_empty());
}
