//! Workers and hosts that die, hang, are too busy, or never start.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serving::{DataPlaneSettings, EndpointPhase, InvokeError, Launcher, VariantPlan};

use crate::scene::{ENDPOINT, Scene, order, quick_settings, text, variant};

fn kill(process: &str) {
    kill_process(Pid::from_raw(process.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_dead_worker_is_replaced_and_nobody_notices() {
    let scene = Scene::new();
    scene.serve(1, vec![variant("AllTraffic", &scene.model("one"))]).await;
    let first = scene.ask("pid").await;
    for _ in 0..3 {
        let victim = scene.ask("pid").await;
        kill(&victim);
        assert_ne!(scene.ask("pid").await, victim);
    }
    assert_ne!(scene.ask("pid").await, first);
    assert_eq!(scene.data_plane.metrics(ENDPOINT).unwrap()[0].errors_5xx, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_killed_under_load_fail_only_what_they_had() {
    const KILLS: usize = 8;
    let scene = Scene::new();
    let plan = VariantPlan { workers: 3, ..variant("AllTraffic", &scene.model("one")) };
    scene.serve(1, vec![plan]).await;
    let is_over = AtomicBool::new(false);
    let answered = AtomicUsize::new(0);
    let caller = || async {
        let mut failed = Vec::new();
        while !is_over.load(Ordering::Acquire) {
            match scene.invoke(order("version")).await {
                Ok(answer) => assert_eq!(text(&answer), "one"),
                Err(error) => failed.push(error),
            }
            answered.fetch_add(1, Ordering::AcqRel);
        }
        failed
    };
    let killer = async {
        for _ in 0..KILLS {
            // One that has just answered is alive; it is busy with another request by now, or free.
            if let Ok(answer) = scene.invoke(order("pid")).await {
                kill(&text(&answer));
            }
            let seen = answered.load(Ordering::Acquire);
            while answered.load(Ordering::Acquire) < seen + 40 {
                tokio::task::yield_now().await;
            }
        }
        is_over.store(true, Ordering::Release);
    };
    let (one, two, three, four, five, ()) =
        tokio::join!(caller(), caller(), caller(), caller(), caller(), killer);
    let failed: Vec<_> = [one, two, three, four, five].concat();
    assert!(failed.len() <= KILLS, "{} requests failed of {KILLS} kills: {failed:?}", failed.len());
    for error in &failed {
        assert!(matches!(error, InvokeError::ContainerLost { .. }), "{error:?}");
    }
    let status = scene.data_plane.watch(ENDPOINT).unwrap().borrow().clone();
    assert_eq!((status.phase, status.last_failure), (EndpointPhase::InService, None));
}

#[tokio::test]
async fn a_request_that_kills_its_worker_is_not_tried_on_others() {
    let scene = Scene::new();
    let plan = VariantPlan { workers: 2, ..variant("AllTraffic", &scene.model("one")) };
    scene.serve(1, vec![plan]).await;
    let error = scene.invoke(order("crash")).await.unwrap_err();
    assert!(matches!(error, InvokeError::ContainerLost { .. }), "{error:?}");
    assert_eq!(scene.ask("version").await, "one");
    let metrics = &scene.data_plane.metrics(ENDPOINT).unwrap()[0];
    assert_eq!((metrics.invocations, metrics.errors_5xx), (2, 1));
}

#[tokio::test]
async fn a_dead_host_is_started_again() {
    let scene = Scene::new();
    scene.serve(1, vec![variant("AllTraffic", &scene.model("one"))]).await;
    let first = scene.launcher.running();
    scene.launcher.kill(&first[0]);
    scene.wait_for(|status| status.last_failure.is_some()).await;
    assert_eq!(scene.ask("version").await, "one");
    assert!(scene.launcher.running().iter().all(|id| *id != first[0]));
    let status = scene.data_plane.watch(ENDPOINT).unwrap().borrow().clone();
    assert_eq!(status.phase, EndpointPhase::InService);
    assert!(status.last_failure.unwrap().contains("signal: 9"));
}

#[tokio::test]
async fn a_slow_model_times_out_and_its_worker_is_ended() {
    let scene = Scene::new();
    let fifo = scene.fifo("never-opened");
    let plan = VariantPlan { model_timeout_seconds: 0.3, ..variant("AllTraffic", &scene.model("one")) };
    scene.serve(1, vec![plan]).await;
    let before = scene.ask("pid").await;
    let error = scene.invoke(order(&format!("await:{}", fifo.display()))).await.unwrap_err();
    assert!(matches!(error, InvokeError::Timeout { limit_seconds: 0.3, .. }), "{error:?}");
    assert_ne!(scene.ask("pid").await, before);
    assert_eq!(scene.data_plane.metrics(ENDPOINT).unwrap()[0].timed_out, 1);
}

#[tokio::test]
async fn what_does_not_fit_into_the_queue_is_refused() {
    let settings =
        DataPlaneSettings { queue_limit: 1, queue_wait: Duration::from_millis(200), ..quick_settings() };
    let scene = Scene::with_settings(settings);
    let fifo = scene.fifo("gate");
    scene.serve(1, vec![variant("AllTraffic", &scene.model("one"))]).await;
    let busy = scene.invoke(order(&format!("await:{}", fifo.display())));
    let rest = async {
        // The worker has the request once somebody else can open the pipe.
        let gate = fifo.clone();
        let gate = tokio::task::spawn_blocking(move || std::fs::OpenOptions::new().write(true).open(gate));
        let gate = gate.await.unwrap().unwrap();
        let (late, refused) = tokio::join!(scene.invoke(order("version")), scene.invoke(order("version")));
        drop(gate);
        (late, refused)
    };
    let (answered, (late, refused)) = tokio::join!(busy, rest);
    assert_eq!(text(&answered.unwrap()), "");
    assert!(matches!(late, Err(InvokeError::Overloaded { .. })), "{late:?}");
    assert!(matches!(refused, Err(InvokeError::QueueFull { limit: 1, .. })), "{refused:?}");
    assert_eq!(scene.ask("version").await, "one");
    assert_eq!(scene.data_plane.metrics(ENDPOINT).unwrap()[0].overloaded, 2);
}

#[tokio::test]
async fn a_waiting_request_gets_the_next_free_worker() {
    let scene = Scene::new();
    let fifo = scene.fifo("gate");
    scene.serve(1, vec![variant("AllTraffic", &scene.model("one"))]).await;
    let busy = scene.invoke(order(&format!("await:{}", fifo.display())));
    let rest = async {
        let gate = fifo.clone();
        let gate = tokio::task::spawn_blocking(move || std::fs::OpenOptions::new().write(true).open(gate));
        let gate = gate.await.unwrap().unwrap();
        let waiting = scene.ask("version");
        let release = async { drop(gate) };
        tokio::join!(waiting, release).0
    };
    let (answered, waited) = tokio::join!(busy, rest);
    answered.unwrap();
    assert_eq!(waited, "one");
    assert!(scene.data_plane.metrics(ENDPOINT).unwrap()[0].queue_microseconds > 0);
}

#[tokio::test]
async fn a_model_that_does_not_load_fails_the_endpoint_with_its_traceback() {
    let scene = Scene::new();
    let script = "def model_fn(model_dir):\n    raise KeyError('weights')\n";
    let status =
        scene.apply(1, vec![variant("AllTraffic", &scene.model_with_script("broken", script))]).await;
    let EndpointPhase::Failed { reason } = status.phase else { panic!("{status:?}") };
    assert!(reason.contains("Traceback") && reason.contains("KeyError: 'weights'"), "{reason}");
    assert!(reason.contains("line 2, in model_fn"), "{reason}");
    let error = scene.invoke(order("version")).await.unwrap_err();
    assert!(matches!(error, InvokeError::NotInService { .. }), "{error:?}");
    // It can be mended by the next plan.
    scene.serve(2, vec![variant("AllTraffic", &scene.model("mended"))]).await;
    assert_eq!(scene.ask("version").await, "mended");
}

#[tokio::test]
async fn a_host_that_is_not_ready_in_time_fails_the_endpoint() {
    let scene = Scene::new();
    let fifo = scene.fifo("never-opened");
    let script = format!("print('opening', file=__import__('sys').stderr)\nopen('{}')\n", fifo.display());
    let plan = VariantPlan {
        startup_timeout_seconds: 1.5,
        ..variant("AllTraffic", &scene.model_with_script("slow", &script))
    };
    let status = scene.apply(1, vec![plan]).await;
    let EndpointPhase::Failed { reason } = status.phase else { panic!("{status:?}") };
    assert!(reason.contains("within 1.5 seconds"), "{reason}");
    assert!(reason.ends_with("Last log lines:\nopening"), "{reason}");
    assert_eq!(scene.launcher.running(), Vec::<String>::new());
}

#[tokio::test]
async fn a_model_without_a_script_describes_itself() {
    let scene = Scene::new();
    let model_dir = scene.path("bare");
    std::fs::create_dir_all(&model_dir).unwrap();
    std::fs::write(model_dir.join("model.json"), r#"{"w": [1]}"#).unwrap();
    scene.serve(1, vec![variant("AllTraffic", &model_dir)]).await;
    let request = serving::InvokeRequest {
        body: r#"{"x": 1}"#.into(),
        content_type: Some("application/json".into()),
        accept: Some("application/json".into()),
        ..Default::default()
    };
    let answer: serde_json::Value =
        serde_json::from_slice(&scene.invoke(request).await.unwrap().body).unwrap();
    assert_eq!(answer["model"]["model.json"], serde_json::json!({"w": [1]}));
    assert_eq!(answer["input"], serde_json::json!({"x": 1}));
    assert!(answer["note"].as_str().unwrap().contains("no inference script"));
}
