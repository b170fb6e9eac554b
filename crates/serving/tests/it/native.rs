//! Endpoints whose models this process answers for.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use bytes::Bytes;
use serving::{
    AnswerSettings, BoxFuture, DataPlane, EndpointPhase, EndpointPlan, ExitText, InvokeError, InvokeRequest,
    InvokeResponse, LaunchError, Launcher, NativeModel, Protocol, ReplicaSpec, VariantPlan,
};
use tokio::sync::watch;

use crate::scene::{ENDPOINT, quick_settings, text, variant};

/// The models by replica, with what ends when their replica does.
type Models = BTreeMap<String, (Arc<NativeModel>, watch::Sender<()>)>;

/// Launches by loading the file that the plan names.
#[derive(Default)]
struct NativeLauncher {
    models: Mutex<Models>,
}

impl Launcher for NativeLauncher {
    fn launch<'a>(&'a self, replica: &'a ReplicaSpec) -> BoxFuture<'a, Result<(), LaunchError>> {
        Box::pin(async move {
            let name = replica.launch["model_dir"].as_str().unwrap();
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(name);
            let model = NativeModel::load(&path, AnswerSettings::default());
            let model = Arc::new(model.map_err(|refusal| LaunchError(refusal.to_string()))?);
            self.models.lock().unwrap().insert(replica.id.clone(), (model, watch::Sender::new(())));
            Ok(())
        })
    }

    fn protocol(&self, _: &str) -> Protocol {
        Protocol::Native
    }

    fn native_model(&self, id: &str) -> Option<Arc<NativeModel>> {
        self.models.lock().unwrap().get(id).map(|(model, _)| model.clone())
    }

    fn exited<'a>(&'a self, id: &'a str) -> BoxFuture<'a, ExitText> {
        let stopped = self.models.lock().unwrap().get(id).map(|(_, stopped)| stopped.subscribe());
        Box::pin(async move {
            if let Some(mut stopped) = stopped {
                while stopped.changed().await.is_ok() {}
            }
            ExitText::default()
        })
    }

    fn stop<'a>(&'a self, id: &'a str) -> BoxFuture<'a, ()> {
        self.models.lock().unwrap().remove(id);
        Box::pin(async {})
    }

    fn running(&self) -> Vec<String> {
        self.models.lock().unwrap().keys().cloned().collect()
    }
}

struct NativeScene {
    launcher: Arc<NativeLauncher>,
    data_plane: DataPlane,
    _folder: tempfile::TempDir,
}

impl NativeScene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let launcher = Arc::new(NativeLauncher::default());
        let data_plane = DataPlane::new(launcher.clone(), folder.path().join("sockets"), quick_settings());
        Self { launcher, data_plane, _folder: folder }
    }

    async fn apply(&self, generation: u64, variants: Vec<VariantPlan>) -> EndpointPhase {
        let plan = EndpointPlan { endpoint: ENDPOINT.into(), generation, variants };
        let mut status = self.data_plane.apply(plan).unwrap();
        status.wait_for(|status| status.has_settled(generation)).await.unwrap().phase.clone()
    }

    fn invoke(&self, body: impl Into<Bytes>) -> impl Future<Output = Result<InvokeResponse, InvokeError>> {
        let content_type = Some("text/csv".to_owned());
        self.data_plane
            .invoke(ENDPOINT, InvokeRequest { content_type, body: body.into(), ..InvokeRequest::default() })
    }
}

fn plan(model: &str) -> VariantPlan {
    VariantPlan { replicas: 2, ..variant("AllTraffic", Path::new(model)) }
}

#[tokio::test]
async fn a_native_model_serves_is_replaced_and_goes() {
    let scene = NativeScene::new();
    assert_eq!(scene.apply(1, vec![plan("regression.json")]).await, EndpointPhase::InService);
    assert_eq!(scene.launcher.running().len(), 2);
    let first = text(&scene.invoke("1,2,3,4,5,6").await.unwrap());
    assert!(first.parse::<f64>().is_ok(), "{first}");
    let Err(InvokeError::ModelError { answer, body, .. }) = scene.invoke("1,2,3,4,5,6,7").await else {
        panic!("a row that is too wide was answered")
    };
    assert_eq!(answer.status, 400);
    assert!(String::from_utf8_lossy(&body).contains("Feature size of csv inference data 7"));
    let before = scene.launcher.running();
    let update = scene.apply(2, vec![plan("softprob.ubj")]);
    let callers = async {
        let mut last = first;
        while !last.starts_with('[') {
            last = text(&scene.invoke("1,2,3,4,5,6").await.expect("a request failed during the update"));
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(tokio::join!(update, callers).0, EndpointPhase::InService);
    for id in &before {
        scene.launcher.exited(id).await;
    }
    let failed = scene.apply(3, vec![plan("refused-cox.ubj")]).await;
    assert!(matches!(failed, EndpointPhase::UpdateFailed { reason } if reason.contains("survival:cox")));
    assert!(text(&scene.invoke("1,2,3,4,5,6").await.unwrap()).starts_with('['));
    scene.data_plane.remove(ENDPOINT).await;
    assert!(scene.launcher.running().is_empty());
}

/// More callers give up than there are places; none of these may be lost.
#[tokio::test]
async fn callers_that_go_away_leave_their_places() {
    let scene = NativeScene::new();
    let only = VariantPlan { replicas: 1, ..plan("softprob.ubj") };
    assert_eq!(scene.apply(1, vec![only]).await, EndpointPhase::InService);
    let long = Bytes::from("1,2,3,4,5,6\n".repeat(20_000));
    let places = quick_settings().http_requests_at_once;
    for _ in 0..3 * places {
        let mut request = pin!(scene.invoke(long.clone()));
        assert!(request.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    let answer = text(&scene.invoke("1,2,3,4,5,6").await.unwrap());
    assert!(answer.starts_with('['), "{answer}");
}
