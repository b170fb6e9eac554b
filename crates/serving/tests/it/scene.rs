//! What every test needs: a launcher, a data plane, model folders, and short ways to ask.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serving::{
    DataPlane, DataPlaneSettings, EndpointPhase, EndpointPlan, EndpointStatus, InvokeError, InvokeRequest,
    InvokeResponse, RoutingStrategy, VariantPlan,
};

use crate::local_launcher::{LocalLauncher, as_launcher, payload};

pub const ENDPOINT: &str = "111122223333/us-east-1/probe";

/// Does what the custom attributes say; otherwise it gives the body back.
const SCRIPT: &str = r#"
import os, signal

def model_fn(model_dir):
    with open(os.path.join(model_dir, "version")) as file:
        return file.read()

def pieces(count, broken):
    for number in range(count):
        yield "piece %d;" % number
    if broken:
        raise RuntimeError("out of pieces")

def transform_fn(model, body, content_type, accept, context):
    order, _, value = (context.get_request_header(0, "X-Amzn-SageMaker-Custom-Attributes") or "").partition(":")
    context.set_response_header(0, "X-Amzn-SageMaker-Custom-Attributes", "did " + order)
    if order == "version":
        return model, "text/plain"
    if order == "pid":
        return str(os.getpid()), "text/plain"
    if order == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if order == "raise":
        raise ValueError("bad " + value)
    if order == "await":
        # Opening waits until the other side opens too; the pid says who waits.
        with open(value) as fifo:
            return fifo.read(), "text/plain"
    if order == "stream" or order == "broken":
        return pieces(int(value), order == "broken"), "text/plain"
    if order == "long":
        return "x" * int(value), "text/plain"
    if order == "accept":
        return accept + "|" + content_type
    return body, content_type
"#;

pub struct Scene {
    pub launcher: Arc<LocalLauncher>,
    pub data_plane: DataPlane,
    pub settings: DataPlaneSettings,
    folder: tempfile::TempDir,
}

impl Scene {
    pub fn new() -> Self {
        Self::with_settings(quick_settings())
    }

    pub fn with_settings(settings: DataPlaneSettings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let launcher = Arc::new(LocalLauncher::default());
        let data_plane =
            DataPlane::new(as_launcher(&launcher), folder.path().join("sockets"), settings.clone());
        Self { launcher, data_plane, settings, folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Drops the data plane, as a server that ends does; the one in its place has nothing to do with the replicas.
    pub fn stop_data_plane(&mut self) {
        let nowhere = self.path("no-sockets");
        self.data_plane =
            DataPlane::new(Arc::new(LocalLauncher::default()), nowhere, DataPlaneSettings::default());
    }

    /// Drops the data plane and makes a new one, as a restart of the server does.
    pub fn restart_data_plane(&mut self) {
        let sockets = self.folder.path().join("sockets");
        self.data_plane = DataPlane::new(as_launcher(&self.launcher), sockets, self.settings.clone());
    }

    /// A model folder whose script answers `version` with this text.
    pub fn model(&self, version: &str) -> PathBuf {
        self.model_with_script(version, SCRIPT)
    }

    pub fn model_with_script(&self, version: &str, script: &str) -> PathBuf {
        let model_dir = self.path(&format!("model-{version}"));
        std::fs::create_dir_all(model_dir.join("code")).unwrap();
        std::fs::write(model_dir.join("version"), version).unwrap();
        std::fs::write(model_dir.join("code/inference.py"), script).unwrap();
        model_dir
    }

    pub fn fifo(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        path
    }

    /// Applies a plan of these variants and waits for its outcome.
    pub async fn apply(&self, generation: u64, variants: Vec<VariantPlan>) -> EndpointStatus {
        let plan = EndpointPlan { endpoint: ENDPOINT.into(), generation, variants };
        let mut status = self.data_plane.apply(plan).unwrap();
        let settled = status.wait_for(|status| status.has_settled(generation)).await.unwrap();
        settled.clone()
    }

    /// The same, and it must come into service.
    pub async fn serve(&self, generation: u64, variants: Vec<VariantPlan>) {
        let status = self.apply(generation, variants).await;
        assert_eq!(status.phase, EndpointPhase::InService, "{status:#?}");
    }

    pub async fn wait_for(&self, condition: impl FnMut(&EndpointStatus) -> bool) {
        self.data_plane.watch(ENDPOINT).unwrap().wait_for(condition).await.unwrap();
    }

    pub async fn invoke(&self, request: InvokeRequest) -> Result<InvokeResponse, InvokeError> {
        self.data_plane.invoke(ENDPOINT, request).await
    }

    /// The answer to an order that must succeed.
    pub async fn ask(&self, attributes: &str) -> String {
        text(&self.invoke(order(attributes)).await.unwrap())
    }
}

pub fn text(response: &InvokeResponse) -> String {
    String::from_utf8(response.body.to_vec()).unwrap()
}

pub fn order(attributes: &str) -> InvokeRequest {
    InvokeRequest { custom_attributes: Some(attributes.into()), ..InvokeRequest::default() }
}

pub fn variant(name: &str, model_dir: &Path) -> VariantPlan {
    VariantPlan {
        name: name.into(),
        weight: 1.0,
        replicas: 1,
        routing: RoutingStrategy::default(),
        workers: 1,
        composition: serving::Composition::Single,
        startup_timeout_seconds: 60.0,
        model_timeout_seconds: 60.0,
        launch: payload(model_dir),
        on_demand: None,
    }
}

pub fn quick_settings() -> DataPlaneSettings {
    DataPlaneSettings {
        check_interval: Duration::from_millis(10),
        ping_interval: Duration::from_millis(50),
        restart_backoff: Duration::from_millis(1),
        ..DataPlaneSettings::default()
    }
}

impl Scene {
    pub fn launcher_knows(&self, replica: &str) -> bool {
        use serving::Launcher;
        self.launcher.running().iter().any(|id| id == replica)
    }
}
