//! Processes that stand by for variants on demand which have no replica.

use serving::{DataPlaneSettings, EndpointPlan, Launcher, OnDemandPlan, ReplicaSpec, VariantPlan};

use crate::on_demand::{has, plan, resume};
use crate::scene::{ENDPOINT, Scene, order, quick_settings, text, variant};

const SHORT: f64 = 0.2;

/// Says whether a module was there before the script imported it, and in which host.
const SCRIPT: &str = "
import os, sys
WAS_THERE = 'wave' in sys.modules
import wave
def model_fn(model_dir):
    if os.path.exists(os.path.join(model_dir, 'broken')): raise RuntimeError('no luck')
def transform_fn(model, body, content_type, accept):
    return '{} {}'.format(WAS_THERE, os.getppid())
";

fn sleeper(scene: &Scene) -> VariantPlan {
    let model = scene.model_with_script("sleeper", SCRIPT);
    VariantPlan { on_demand: plan(scene, 2, SHORT).on_demand, ..variant("AllTraffic", &model) }
}

/// What stands by as the launch of that number.
async fn standby(scene: &Scene, number: usize) -> ReplicaSpec {
    let launches = scene.launcher.launches(number).await;
    assert_eq!(launches.len(), number, "{launches:#?}");
    let last = launches.last().unwrap().clone();
    assert!(last.standby, "{launches:#?}");
    last
}

/// What the script says that has its module from this launch, or not.
fn says(scene: &Scene, was_there: &str, launch: &ReplicaSpec) -> String {
    format!("{was_there} {}", scene.launcher.pid(&launch.id))
}

#[tokio::test]
async fn what_stands_by_has_the_imports_and_becomes_the_replica() {
    let scene = Scene::new();
    scene.serve(1, vec![sleeper(&scene)]).await;
    let mut awake = scene.launcher.launches(1).await.remove(0).id;
    for cycle in 1..=2 {
        has(&scene, 0).await;
        let standby = standby(&scene, cycle + 1).await;
        let names = std::fs::read_to_string(standby.socket.with_file_name("imports")).unwrap();
        assert!(names.lines().any(|name| name == "wave"), "{names}");
        // It is no replica yet.
        scene.launcher.exited(&awake).await;
        assert_eq!(scene.data_plane.replicas(ENDPOINT), Vec::<String>::new());
        assert_eq!(scene.data_plane.replica_places(), []);
        assert_eq!(scene.ask("anything").await, says(&scene, "True", &standby));
        awake = standby.id;
    }
    let metrics = scene.data_plane.variant_metrics(ENDPOINT, "AllTraffic").unwrap();
    assert_eq!((metrics.invocations, metrics.errors_5xx, metrics.setup_latencies.count()), (2, 0, 3));
    scene.data_plane.remove(ENDPOINT).await;
    assert!(scene.launcher.running().is_empty());
}

#[tokio::test]
async fn it_ends_with_its_endpoint_and_with_its_generation() {
    let scene = Scene::new();
    scene.serve(1, vec![sleeper(&scene)]).await;
    let first = standby(&scene, 2).await;
    scene.serve(2, vec![variant("AllTraffic", &scene.model("one"))]).await;
    scene.launcher.exited(&first.id).await;
    scene.serve(3, vec![sleeper(&scene)]).await;
    let second = standby(&scene, 5).await;
    scene.data_plane.remove(ENDPOINT).await;
    assert!(scene.launcher.running().is_empty());
    assert!(![first, second].iter().any(|standby| standby.socket.parent().unwrap().exists()));
}

#[tokio::test]
async fn without_what_stood_by_a_wake_is_an_ordinary_start() {
    let scene = Scene::new();
    scene.serve(1, vec![sleeper(&scene)]).await;
    let lost = standby(&scene, 2).await;
    scene.launcher.kill(&lost.id);
    scene.launcher.exited(&lost.id).await;
    let answer = scene.ask("anything").await;
    let launched = scene.launcher.launches(3).await.remove(2);
    assert_eq!((answer, launched.standby), (says(&scene, "False", &launched), false));
    // The next sleep has one again, which cannot load its model: what is started afresh says why.
    standby(&scene, 4).await;
    std::fs::write(scene.path("model-sleeper").join("broken"), "").unwrap();
    let failed = scene.invoke(order("anything")).await.unwrap_err().to_string();
    assert!(failed.contains("no luck"), "{failed}");
    assert!(!scene.launcher.launches(5).await[4].standby);
    std::fs::remove_file(scene.path("model-sleeper").join("broken")).unwrap();
}

#[tokio::test]
async fn a_later_server_makes_it_a_replica() {
    let mut scene = Scene::new();
    let plan = sleeper(&scene);
    scene.serve(1, vec![plan.clone()]).await;
    let proof = scene.launcher.launches(1).await.remove(0);
    let standby = standby(&scene, 2).await;
    scene.launcher.exited(&proof.id).await;
    scene.restart_data_plane();
    resume(&scene, &plan).await;
    assert_eq!(scene.ask("anything").await, says(&scene, "True", &standby));
    assert!(scene.launcher.launches(3).await[2].standby, "it sleeps again");
    scene.data_plane.remove(ENDPOINT).await;
    assert!(scene.launcher.running().is_empty());
}

#[tokio::test]
async fn another_plan_of_the_generation_has_another_standby() {
    let scene = Scene::new();
    let before = sleeper(&scene);
    scene.serve(1, vec![before.clone()]).await;
    let first = standby(&scene, 2).await;
    let after = VariantPlan { workers: 2, ..before };
    scene.serve(1, vec![after.clone()]).await;
    scene.launcher.exited(&first.id).await;
    let second = standby(&scene, 3).await;
    assert_eq!((first.workers, second.workers), (1, 2));
    // The same plan again changes nothing.
    scene.serve(1, vec![after]).await;
    assert_eq!(scene.ask("anything").await, says(&scene, "True", &second));
}

#[tokio::test]
async fn of_too_many_the_oldest_ends() {
    let scene = Scene::with_settings(DataPlaneSettings { standby_limit: 1, ..quick_settings() });
    let apply = async |endpoint: &str| {
        let variants = vec![sleeper(&scene)];
        let plan = EndpointPlan { endpoint: endpoint.into(), generation: 1, variants };
        let mut status = scene.data_plane.apply(plan).unwrap();
        status.wait_for(|status| status.has_settled(1)).await.unwrap();
    };
    let ask =
        async |endpoint: &str| text(&scene.data_plane.invoke(endpoint, order("anything")).await.unwrap());
    apply("1/r/first").await;
    let first = standby(&scene, 2).await;
    apply("1/r/second").await;
    let second = standby(&scene, 4).await;
    scene.launcher.exited(&first.id).await;
    assert!(scene.launcher_knows(&second.id));
    assert_eq!(ask("1/r/second").await, says(&scene, "True", &second));
    assert!(ask("1/r/first").await.starts_with("False "));
}

#[tokio::test]
async fn with_a_limit_of_none_or_without_a_list_nothing_stands_by() {
    let none = Scene::with_settings(DataPlaneSettings { standby_limit: 0, ..quick_settings() });
    none.serve(1, vec![sleeper(&none)]).await;
    let scene = Scene::new();
    let setting = scene.model_with_script("setting", &format!("import os\nos.environ['A'] = 'b'\n{SCRIPT}"));
    let on_demand: Option<OnDemandPlan> = plan(&scene, 2, SHORT).on_demand;
    scene.serve(1, vec![VariantPlan { on_demand, ..variant("AllTraffic", &setting) }]).await;
    for scene in [&none, &scene] {
        has(scene, 0).await;
        assert!(scene.ask("anything").await.starts_with("False "));
        assert!(scene.launcher.launches(2).await.iter().all(|launched| !launched.standby));
    }
}
