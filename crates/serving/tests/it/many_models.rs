//! Endpoints of many models: native ones of this process, and those that the workers of a model host load.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serving::{
    AnswerSettings, BoxFuture, Composition, DataPlane, EndpointPhase, EndpointPlan, ExitText, FetchError,
    FetchedModel, InvokeError, InvokeRequest, InvokeResponse, LaunchError, Launcher, LoadedModel,
    ModelContent, ModelMetrics, ModelsPlan, NativeModel, Protocol, ReplicaSpec, TargetProblem, VariantPlan,
};

use crate::local_launcher::LocalLauncher;
use crate::scene::{ENDPOINT, quick_settings, text, variant};

/// Models of the tests by name, over replicas that are model hosts, or nothing at all.
struct Shop {
    hosts: Option<LocalLauncher>,
    natives: Mutex<Vec<String>>,
    folder: PathBuf,
    stock: Mutex<BTreeMap<String, Ware>>,
    fetched: Mutex<Vec<String>>,
}

/// What is fetched under a name.
#[derive(Clone)]
enum Ware {
    /// A file of the native tests, as this version.
    Native(&'static str, u32),
    /// An inference script.
    Script(String),
}

impl Shop {
    fn put(&self, name: &str, ware: Ware) {
        self.stock.lock().unwrap().insert(name.to_owned(), ware);
    }

    fn find(&self, name: &str) -> Result<Ware, FetchError> {
        let missing = || FetchError::Missing(format!("there is no {name}"));
        self.stock.lock().unwrap().get(name).cloned().ok_or_else(missing)
    }

    fn times_fetched(&self, name: &str) -> usize {
        self.fetched.lock().unwrap().iter().filter(|fetched| *fetched == name).count()
    }
}

impl Launcher for Shop {
    fn launch<'a>(&'a self, replica: &'a ReplicaSpec) -> BoxFuture<'a, Result<(), LaunchError>> {
        match &self.hosts {
            Some(hosts) => hosts.launch(replica),
            None => Box::pin(async move {
                self.natives.lock().unwrap().push(replica.id.clone());
                Ok(())
            }),
        }
    }

    fn protocol(&self, id: &str) -> Protocol {
        self.hosts.as_ref().map_or(Protocol::Native, |hosts| hosts.protocol(id))
    }

    fn fetch_model<'a>(
        &'a self,
        _: &'a ReplicaSpec,
        model: &'a str,
    ) -> BoxFuture<'a, Result<FetchedModel, FetchError>> {
        Box::pin(async move {
            let times = {
                let mut fetched = self.fetched.lock().unwrap();
                fetched.push(model.to_owned());
                fetched.len()
            };
            // Others get a turn, as they do while an archive is read.
            tokio::task::yield_now().await;
            Ok(match self.find(model)? {
                Ware::Native(file, version) => {
                    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(file);
                    let native = NativeModel::load(&path, AnswerSettings::default());
                    let native = native.map_err(|refusal| FetchError::Unusable(refusal.to_string()))?;
                    FetchedModel {
                        version: version.to_string(),
                        content: ModelContent::Native(Arc::new(native)),
                    }
                }
                Ware::Script(script) => {
                    // A name of its own each time, as the folder of the last may be on its way out.
                    let name = format!("{model}-{times}");
                    let folder = self.folder.join(&name);
                    std::fs::create_dir_all(folder.join("model/code")).unwrap();
                    std::fs::write(folder.join("model/code/inference.py"), &script).unwrap();
                    let inside = folder.join("model").display().to_string();
                    let content = ModelContent::Folder { name, inside, folder };
                    FetchedModel { version: script, content }
                }
            })
        })
    }

    fn model_version<'a>(
        &'a self,
        _: &'a ReplicaSpec,
        model: &'a str,
    ) -> BoxFuture<'a, Result<String, FetchError>> {
        Box::pin(async move {
            Ok(match self.find(model)? {
                Ware::Native(_, version) => version.to_string(),
                Ware::Script(script) => script,
            })
        })
    }

    fn exited<'a>(&'a self, id: &'a str) -> BoxFuture<'a, ExitText> {
        match &self.hosts {
            Some(hosts) => hosts.exited(id),
            None => Box::pin(std::future::pending()),
        }
    }

    fn stop<'a>(&'a self, id: &'a str) -> BoxFuture<'a, ()> {
        match &self.hosts {
            Some(hosts) => hosts.stop(id),
            None => Box::pin(async move { self.natives.lock().unwrap().retain(|known| known != id) }),
        }
    }

    fn running(&self) -> Vec<String> {
        match &self.hosts {
            Some(hosts) => hosts.running(),
            None => self.natives.lock().unwrap().clone(),
        }
    }
}

struct Scene {
    shop: Arc<Shop>,
    data_plane: DataPlane,
    _folder: tempfile::TempDir,
}

impl Scene {
    async fn serve(hosts: Option<LocalLauncher>, plan: ModelsPlan) -> Scene {
        Scene::of(hosts, plan, false).await
    }

    async fn of(hosts: Option<LocalLauncher>, plan: ModelsPlan, is_container: bool) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let models = folder.path().join("models");
        std::fs::create_dir(&models).unwrap();
        std::fs::write(models.join("version"), "many").unwrap();
        let shop = Arc::new(Shop {
            hosts,
            natives: Mutex::default(),
            folder: models.clone(),
            stock: Mutex::default(),
            fetched: Mutex::default(),
        });
        let sockets = folder.path().join("sockets");
        let data_plane = DataPlane::new(shop.clone(), sockets, quick_settings());
        let mut variant = variant("AllTraffic", &models);
        variant.launch["many_models"] = true.into();
        variant.launch["container"] = is_container.into();
        variant.workers = 2;
        let variants = vec![VariantPlan { composition: Composition::Models(plan), ..variant }];
        let plan = EndpointPlan { endpoint: ENDPOINT.into(), generation: 1, variants };
        let mut status = data_plane.apply(plan).unwrap();
        let settled = status.wait_for(|status| status.has_settled(1)).await.unwrap().clone();
        assert_eq!(settled.phase, EndpointPhase::InService, "{settled:?}");
        Scene { shop, data_plane, _folder: folder }
    }

    async fn invoke(&self, model: &str, body: &'static str) -> Result<InvokeResponse, InvokeError> {
        let request = InvokeRequest {
            target_model: Some(model.to_owned()),
            content_type: Some("text/csv".into()),
            body: Bytes::from_static(body.as_bytes()),
            ..InvokeRequest::default()
        };
        self.data_plane.invoke(ENDPOINT, request).await
    }

    async fn ask(&self, model: &str, body: &'static str) -> String {
        text(&self.invoke(model, body).await.unwrap())
    }

    fn metrics(&self) -> ModelMetrics {
        self.data_plane.metrics(ENDPOINT).unwrap()[0].models.clone()
    }

    fn loaded(&self) -> Vec<LoadedModel> {
        let mut loaded = self.data_plane.loaded_models(ENDPOINT);
        loaded.sort_by(|one, other| one.model.cmp(&other.model));
        loaded
    }

    fn names(&self) -> Vec<String> {
        self.loaded().into_iter().map(|model| model.model).collect()
    }
}

const ROW: &str = "1,2,3,4,5,6";
const PLENTY: ModelsPlan = ModelsPlan { memory_bytes: 1 << 30, keeps: true };

#[tokio::test]
async fn a_cold_model_is_loaded_once_however_many_ask() {
    let scene = Scene::serve(None, PLENTY).await;
    scene.shop.put("one", Ware::Native("regression.json", 1));
    let asked: Vec<_> = (0..100).map(|_| scene.invoke("one", ROW)).collect();
    let mut answers = Vec::new();
    for answer in futures_of(asked).await {
        answers.push(text(&answer.unwrap()));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]) && answers[0].parse::<f64>().is_ok());
    assert_eq!(scene.shop.times_fetched("one"), 1);
    let metrics = scene.metrics();
    assert_eq!((metrics.hits, metrics.misses, metrics.loaded), (0, 100, 1));
    scene.ask("one", ROW).await;
    let metrics = scene.metrics();
    assert_eq!((metrics.hits, metrics.loads.count(), metrics.downloads.count()), (1, 1, 1));
    let loaded = &scene.loaded()[0];
    assert_eq!((loaded.engine, loaded.hits, loaded.is_ready), ("native", 1, true));
    assert_eq!(loaded.bytes, metrics.loaded_bytes);
}

/// Drives all of them together.
async fn futures_of<F: Future>(all: Vec<F>) -> Vec<F::Output> {
    let mut all: Vec<_> = all.into_iter().map(|one| (Box::pin(one), None)).collect();
    std::future::poll_fn(|context| {
        for (future, output) in &mut all {
            if output.is_none()
                && let std::task::Poll::Ready(done) = future.as_mut().poll(context)
            {
                *output = Some(done);
            }
        }
        match all.iter().all(|(_, output)| output.is_some()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    all.into_iter().filter_map(|(_, output)| output).collect()
}

#[tokio::test]
async fn the_least_recently_used_model_makes_room_by_what_it_takes() {
    let scene = Scene::serve(None, PLENTY).await;
    scene.shop.put("one", Ware::Native("regression.json", 1));
    scene.ask("one", ROW).await;
    let bytes = scene.loaded()[0].bytes;
    let scene = Scene::serve(None, ModelsPlan { memory_bytes: 2 * bytes + bytes / 2, keeps: true }).await;
    for name in ["one", "two", "three"] {
        scene.shop.put(name, Ware::Native("regression.json", 1));
    }
    scene.ask("one", ROW).await;
    scene.ask("two", ROW).await;
    scene.ask("one", ROW).await;
    scene.ask("three", ROW).await;
    assert_eq!(scene.names(), ["one", "three"]);
    scene.ask("two", ROW).await;
    assert_eq!(scene.names(), ["three", "two"]);
    assert_eq!((scene.shop.times_fetched("two"), scene.shop.times_fetched("one")), (2, 1));

    let scene = Scene::serve(None, ModelsPlan { memory_bytes: bytes - 1, keeps: true }).await;
    scene.shop.put("one", Ware::Native("regression.json", 1));
    let refused = scene.invoke("one", ROW).await.unwrap_err();
    let InvokeError::ModelError { answer, body, .. } = refused else { panic!("{refused:?}") };
    assert_eq!(answer.status, 507);
    assert!(String::from_utf8_lossy(&body).contains("multi_model_memory_mb"), "{body:?}");
    assert!(scene.names().is_empty());
}

#[tokio::test]
async fn requests_must_name_a_model_that_is_there() {
    let scene = Scene::serve(None, PLENTY).await;
    let missing = scene.invoke("none", ROW).await.unwrap_err();
    assert!(matches!(missing, InvokeError::NoSuchModel { .. }), "{missing:?}");
    let unnamed = scene.data_plane.invoke(ENDPOINT, InvokeRequest::default()).await.unwrap_err();
    let problem = TargetProblem::NoModelNamed;
    assert!(matches!(unnamed, InvokeError::WrongTarget { problem: found } if found == problem));
    // What was missing is looked for again.
    scene.shop.put("none", Ware::Native("regression.json", 1));
    scene.ask("none", ROW).await;
    scene.shop.put("broken", Ware::Native("refused-cox.ubj", 1));
    let broken = scene.invoke("broken", ROW).await.unwrap_err();
    let InvokeError::ModelError { body, .. } = broken else { panic!("{broken:?}") };
    assert!(String::from_utf8_lossy(&body).contains("survival:cox"), "{body:?}");
}

#[tokio::test]
async fn models_that_are_not_kept_go_with_their_last_request() {
    let scene = Scene::serve(None, ModelsPlan { keeps: false, ..PLENTY }).await;
    scene.shop.put("one", Ware::Native("regression.json", 1));
    for times in 1..3 {
        scene.ask("one", ROW).await;
        assert!(scene.names().is_empty());
        assert_eq!(scene.shop.times_fetched("one"), times);
    }
}

#[tokio::test]
async fn a_replaced_archive_is_loaded_anew() {
    let scene = Scene::serve(None, PLENTY).await;
    scene.shop.put("one", Ware::Native("regression.json", 1));
    let before = scene.ask("one", ROW).await;
    scene.shop.put("one", Ware::Native("softprob.ubj", 2));
    loop {
        let now = scene.ask("one", ROW).await;
        if now != before {
            assert!(now.starts_with('['), "{now}");
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!((scene.shop.times_fetched("one"), scene.names().len()), (2, 1));
}

/// A model that says its name and where it runs, waits, fails or ends its process.
fn script(name: &str, at_load: &str) -> Ware {
    Ware::Script(format!(
        r#"
import os, signal
{at_load}
NAME = "{name}"

def model_fn(model_dir):
    return NAME

def transform_fn(model, body, content_type, accept):
    if body.startswith("await:"):
        with open(body[6:]) as fifo:
            return fifo.read(), "text/plain"
    if body == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if body == "pid":
        return str(os.getpid()), "text/plain"
    return model + " " + body, "text/plain"
"#
    ))
}

#[tokio::test]
async fn workers_load_many_models_and_keep_them_apart() {
    let scene = Scene::serve(Some(LocalLauncher::default()), PLENTY).await;
    for name in ["one", "two", "three"] {
        scene.shop.put(name, script(name, ""));
    }
    for name in ["one", "two", "three", "one"] {
        assert_eq!(scene.ask(name, "hello").await, format!("{name} hello"));
    }
    assert_eq!(scene.shop.times_fetched("one"), 1);
    assert_eq!(scene.names(), ["one", "three", "two"]);
    // Two workers share them.
    let pids: std::collections::BTreeSet<_> =
        [scene.ask("one", "pid").await, scene.ask("two", "pid").await, scene.ask("three", "pid").await]
            .into_iter()
            .collect();
    assert_eq!(pids.len(), 2);
    scene.shop.put("broken", script("broken", "raise ValueError('the weights are missing')"));
    let broken = scene.invoke("broken", "x").await.unwrap_err();
    let InvokeError::ModelError { body, .. } = broken else { panic!("{broken:?}") };
    assert!(String::from_utf8_lossy(&body).contains("the weights are missing"), "{body:?}");
    // As a script that ends the process while it is loaded: the others stay.
    scene.shop.put("ending", script("ending", "raise SystemExit(3)"));
    assert!(matches!(scene.invoke("ending", "x").await, Err(InvokeError::ModelError { .. })));
    assert_eq!(scene.ask("one", "again").await, "one again");
    assert_eq!(scene.shop.times_fetched("one"), 1);
}

#[tokio::test]
async fn a_hot_model_answers_while_another_is_loaded_or_waits() {
    let scene = Scene::serve(Some(LocalLauncher::default()), PLENTY).await;
    let fifo = scene.shop.folder.join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    for name in ["one", "two"] {
        scene.shop.put(name, script(name, ""));
        scene.ask(name, "x").await;
    }
    scene.shop.put("slow", script("slow", &format!("open({:?}).read()", fifo.display().to_string())));
    let slow = scene.invoke("slow", "y");
    let hot = async {
        for _ in 0..20 {
            assert_eq!(scene.ask("one", "x").await, "one x");
            assert_eq!(scene.ask("two", "x").await, "two x");
        }
        let opened = fifo.clone();
        tokio::task::spawn_blocking(move || drop(std::fs::File::create(opened).unwrap())).await.unwrap();
    };
    let (slow, ()) = tokio::join!(slow, hot);
    assert_eq!(text(&slow.unwrap()), "slow y");
}

#[tokio::test]
async fn a_worker_that_dies_takes_only_its_own_models_along() {
    let scene = Scene::serve(Some(LocalLauncher::default()), PLENTY).await;
    for name in ["one", "two"] {
        scene.shop.put(name, script(name, ""));
        scene.ask(name, "x").await;
    }
    let crashed = scene.invoke("one", "crash").await.unwrap_err();
    assert!(matches!(crashed, InvokeError::ContainerLost { .. }), "{crashed:?}");
    assert_eq!(scene.ask("two", "x").await, "two x");
    assert_eq!(scene.ask("one", "x").await, "one x");
    assert_eq!((scene.shop.times_fetched("one"), scene.shop.times_fetched("two")), (2, 1));
    // Killed while it loads: whoever waits is told, and the next request loads it again.
    scene.shop.put("dying", script("dying", "os.kill(os.getpid(), signal.SIGKILL)"));
    let died = scene.invoke("dying", "x").await.unwrap_err();
    let InvokeError::ModelError { body, .. } = died else { panic!("{died:?}") };
    assert!(String::from_utf8_lossy(&body).contains("ended while it loaded the model"), "{body:?}");
    scene.shop.put("dying", script("dying", ""));
    assert_eq!(scene.ask("dying", "x").await, "dying x");
}

#[tokio::test]
async fn models_of_workers_are_unloaded_with_their_files() {
    let scene = Scene::serve(Some(LocalLauncher::default()), ModelsPlan { keeps: false, ..PLENTY }).await;
    scene.shop.put("one", script("one", ""));
    assert_eq!(scene.ask("one", "x").await, "one x");
    let folder = scene.shop.folder.join("one-1");
    while folder.exists() {
        tokio::task::yield_now().await;
    }
    assert!(scene.names().is_empty());
    assert_eq!(scene.ask("one", "y").await, "one y");
}

#[tokio::test]
async fn a_container_loads_models_by_its_paths_and_says_when_it_is_full() {
    let scene = Scene::of(Some(LocalLauncher::default()), PLENTY, true).await;
    for name in ["one", "two", "three"] {
        scene.shop.put(name, script(name, ""));
    }
    assert_eq!(scene.ask("one", "x").await, "one x");
    assert_eq!(scene.ask("two", "x").await, "two x");
    assert_eq!(scene.ask("one", "y").await, "one y");
    // There is room for two: the one that was asked for longest ago makes room.
    assert_eq!(scene.ask("three", "x").await, "three x");
    assert_eq!(scene.names(), ["one", "three"]);
    assert_eq!(scene.loaded()[0].engine, "container");
    // A model may answer 404 itself; a container that has forgotten a model loads it again.
    let said = scene.invoke("one", "404").await.unwrap_err();
    let InvokeError::ModelError { answer, body, .. } = said else { panic!("{said:?}") };
    assert_eq!((answer.status, &body[..]), (404, &b"the model says so"[..]));
    assert_eq!(scene.shop.times_fetched("one"), 1);
    let forgotten = scene.invoke("one", "forget").await.unwrap_err();
    assert!(matches!(forgotten, InvokeError::ModelError { .. }), "{forgotten:?}");
    assert!(scene.shop.times_fetched("one") > 1);
    assert_eq!(scene.ask("one", "z").await, "one z");
}
