//! Variants whose replicas come and go with the invocations.

use serving::{EndpointPhase, EndpointPlan, InvokeError, InvokeRequest, Launcher, OnDemandPlan, VariantPlan};

use crate::scene::{ENDPOINT, Scene, order, text, variant};

/// Long enough that nothing goes to sleep in a test that does not wait for it.
const LONG: f64 = 3600.0;

const MOST_BYTES: u64 = 64 * 1024;

pub fn plan(scene: &Scene, max_concurrency: u32, idle_seconds: f64) -> VariantPlan {
    let on_demand = OnDemandPlan {
        max_concurrency,
        provisioned_concurrency: 0,
        max_replicas: max_concurrency,
        idle_seconds,
        refusal_wait_seconds: 0.01,
        max_body_bytes: MOST_BYTES,
    };
    VariantPlan { on_demand: Some(on_demand), ..variant("AllTraffic", &scene.model("one")) }
}

fn with_provisioned(mut plan: VariantPlan, provisioned: u32) -> VariantPlan {
    if let Some(on_demand) = &mut plan.on_demand {
        on_demand.provisioned_concurrency = provisioned;
    }
    plan
}

pub async fn has(scene: &Scene, replicas: u32) {
    scene
        .wait_for(|status| {
            let variant = &status.variants[0];
            (variant.desired_replicas, variant.healthy_replicas) == (replicas, replicas)
        })
        .await;
}

#[tokio::test]
async fn a_model_that_was_proved_to_start_sleeps_and_wakes() {
    let scene = Scene::new();
    scene.serve(1, vec![plan(&scene, 3, 0.3)]).await;
    let proof = scene.launcher.running();
    assert_eq!(proof.len(), 1, "InService says that a replica was there");
    has(&scene, 0).await;
    scene.launcher.exited(&proof[0]).await;
    assert_eq!(scene.ask("version").await, "one");
    let metrics = scene.data_plane.variant_metrics(ENDPOINT, "AllTraffic").unwrap();
    assert_eq!((metrics.invocations, metrics.errors_5xx, metrics.setup_latencies.count()), (1, 0, 2));
    has(&scene, 0).await;
    assert!(scene.data_plane.is_woken(ENDPOINT, "AllTraffic"));
}

#[tokio::test]
async fn replicas_come_for_those_who_wait_and_one_too_many_is_refused() {
    let scene = Scene::new();
    scene.serve(1, vec![plan(&scene, 2, LONG)]).await;
    let (one, other) = (scene.fifo("one"), scene.fifo("other"));
    let ask = |gate: &std::path::Path| scene.invoke(order(&format!("await:{}", gate.display())));
    let test = async {
        has(&scene, 2).await;
        let mut opened = Vec::new();
        for gate in [one.clone(), other.clone()] {
            let open =
                tokio::task::spawn_blocking(move || std::fs::OpenOptions::new().write(true).open(gate));
            opened.push(open.await.unwrap().unwrap());
        }
        let refused = scene.invoke(order("version")).await.unwrap_err();
        assert!(matches!(refused, InvokeError::Throttled { limit: 2, .. }), "{refused:?}");
        // A higher limit is one in place.
        scene.serve(1, vec![plan(&scene, 3, LONG)]).await;
        assert_eq!(scene.ask("version").await, "one");
        for mut gate in opened {
            std::io::Write::write_all(&mut gate, b"let go").unwrap();
        }
    };
    let (first, second, ()) = tokio::join!(ask(&one), ask(&other), test);
    assert_eq!((text(&first.unwrap()), text(&second.unwrap())), ("let go".into(), "let go".into()));
    let metrics = scene.data_plane.variant_metrics(ENDPOINT, "AllTraffic").unwrap();
    assert_eq!((metrics.errors_4xx, metrics.errors_5xx, metrics.in_flight), (1, 0, 0));
}

#[tokio::test]
async fn bodies_that_are_too_long_are_refused_and_wake_nobody() {
    let scene = Scene::new();
    scene.serve(1, vec![plan(&scene, 1, 0.2)]).await;
    let proof = scene.launcher.running();
    has(&scene, 0).await;
    scene.launcher.exited(&proof[0]).await;
    let bring = |bytes: u64| {
        let body = bytes::Bytes::from(vec![b'x'; usize::try_from(bytes).unwrap()]);
        scene.invoke(InvokeRequest { body, ..order("echo") })
    };
    let too_large = |error: &InvokeError| match error {
        InvokeError::TooLarge { what, bytes, limit_bytes } => (*what, *bytes, *limit_bytes),
        other => panic!("{other:?}"),
    };
    let refused = bring(MOST_BYTES + 1).await.unwrap_err();
    assert_eq!(too_large(&refused), ("request body", MOST_BYTES + 1, MOST_BYTES));
    assert_eq!(scene.data_plane.replicas(ENDPOINT), Vec::<String>::new());
    let metrics = scene.data_plane.variant_metrics(ENDPOINT, "AllTraffic").unwrap();
    assert_eq!((metrics.invocations, metrics.errors_4xx, metrics.in_flight), (1, 1, 0));

    assert_eq!(bring(MOST_BYTES).await.unwrap().body.len() as u64, MOST_BYTES);
    // In one piece, and in many that are collected.
    for answer in ["long:65537", "stream:10000"] {
        let refused = scene.invoke(order(answer)).await.unwrap_err();
        let (what, bytes, limit_bytes) = too_large(&refused);
        assert_eq!((what, limit_bytes), ("answer", MOST_BYTES), "{answer}");
        assert!(bytes > MOST_BYTES, "{answer}: {bytes}");
    }
    assert_eq!(scene.ask("version").await, "one");
}

#[tokio::test]
async fn what_is_provisioned_stays() {
    let scene = Scene::new();
    scene.serve(1, vec![with_provisioned(plan(&scene, 3, 0.2), 2)]).await;
    assert_eq!(scene.launcher.running().len(), 2);
    let gates = ["a", "b", "c"].map(|name| scene.fifo(name));
    let ask = |number: usize| scene.invoke(order(&format!("await:{}", gates[number].display())));
    let test = async {
        has(&scene, 3).await;
        for gate in gates.clone() {
            let write = move || std::fs::write(gate, "x").unwrap();
            tokio::task::spawn_blocking(write).await.unwrap();
        }
    };
    let (first, second, third, ()) = tokio::join!(ask(0), ask(1), ask(2), test);
    assert!([first, second, third].iter().all(Result::is_ok));
    has(&scene, 2).await;
    // Less is one in place, too.
    scene.serve(1, vec![plan(&scene, 3, 0.2)]).await;
    has(&scene, 0).await;
}

#[tokio::test]
async fn who_waits_for_a_model_that_starts_no_more_hears_why() {
    let scene = Scene::new();
    let plan = plan(&scene, 1, 0.2);
    scene.serve(1, vec![plan]).await;
    has(&scene, 0).await;
    let script = scene.path("model-one").join("code/inference.py");
    let good = std::fs::read_to_string(&script).unwrap();
    std::fs::write(&script, "raise RuntimeError('no luck')\n").unwrap();
    let failed = scene.invoke(order("version")).await.unwrap_err();
    assert!(
        matches!(&failed, InvokeError::NotStarted { reason, .. } if reason.contains("no luck")),
        "{failed:?}"
    );
    std::fs::write(&script, good).unwrap();
    has(&scene, 0).await;
    assert_eq!(scene.ask("version").await, "one");
}

#[tokio::test]
async fn a_model_that_never_starts_fails_its_endpoint() {
    let scene = Scene::new();
    let plan = plan(&scene, 1, LONG);
    std::fs::write(scene.path("model-one").join("code/inference.py"), "raise RuntimeError('no luck')\n")
        .unwrap();
    let status = scene.apply(1, vec![plan]).await;
    assert!(
        matches!(&status.phase, EndpointPhase::Failed { reason } if reason.contains("no luck")),
        "{status:?}"
    );
}

pub async fn resume(scene: &Scene, plan: &VariantPlan) {
    let plan = EndpointPlan { endpoint: ENDPOINT.into(), generation: 1, variants: vec![plan.clone()] };
    scene.data_plane.resume(plan).unwrap();
}

#[tokio::test]
async fn after_a_restart_it_serves_at_once_asleep_or_awake() {
    let mut scene = Scene::new();
    let short = plan(&scene, 2, 0.2);
    scene.serve(1, vec![short.clone()]).await;
    has(&scene, 0).await;
    scene.restart_data_plane();
    resume(&scene, &short).await;
    scene.wait_for(|status| status.phase == EndpointPhase::InService).await;
    assert_eq!(scene.ask("version").await, "one");

    let mut scene = Scene::new();
    let long = plan(&scene, 2, LONG);
    scene.serve(1, vec![long.clone()]).await;
    let (running, process) = (scene.launcher.running(), scene.ask("pid").await);
    scene.restart_data_plane();
    resume(&scene, &long).await;
    assert_eq!(scene.ask("pid").await, process, "who runs is taken up");
    assert_eq!(scene.launcher.running(), running);
}
