//! The process state, and the router over it. `main` and the tests make the same two calls.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use futures::future::BoxFuture;
use http::{Request, Response};
use runner::catalogue::Catalogue;
use runner::environment::Environments;
use runner::executor::Executor;
use store::keys::KeyStore;
use store::logs::LogStore;
use store::metrics::{MetricSink, MetricStore};
use store::objects::ObjectStore;
use store::{Clock, Database};
use wire::{Body, Peer};

use crate::capacity::{Capacity, Machine};
use crate::config::Config;
use crate::containers::Containers;
use crate::data_dir::Connection;
use crate::endpoints::EndpointController;
use crate::exposition::Sizes;
use crate::identity::Identity;
use crate::pipelines::PipelineDriver;
use crate::registry::validation::ValidationDriver;
use crate::requests::Requests;
use crate::training::TrainingDriver;
use crate::transform::TransformDriver;

/// Everything the handlers share.
pub struct App {
    /// Settings.
    pub config: Config,
    /// Where time comes from.
    pub clock: Clock,
    /// Metadata.
    pub database: Database,
    /// Buckets and objects.
    pub objects: Arc<ObjectStore>,
    /// Encryption keys.
    pub keys: KeyStore,
    /// Log groups and streams.
    pub logs: Arc<LogStore>,
    /// Metrics.
    pub metrics: Arc<MetricStore>,
    /// Takes the server's own measurements without making anybody wait.
    pub metric_sink: MetricSink,
    /// The alarms over metrics.
    pub alarms: Arc<crate::monitoring::Alarms>,
    /// Counts of requests.
    pub requests: Arc<Requests>,
    /// Sizes that are looked up now and then.
    pub sizes: Sizes,
    /// Accounts, keys, sessions.
    pub identity: Identity,
    /// Which image means what.
    pub catalogue: Catalogue,
    /// Python environments.
    pub environments: Environments,
    /// Runs images that are no Python environments.
    pub containers: Containers,
    /// Runs workloads.
    pub executor: Arc<dyn Executor>,
    /// How jobs and the command line reach this server.
    pub connection: Connection,
    /// Who may run, and with how much of the machine.
    pub capacity: Capacity,
    /// Instances of functions.
    pub functions: crate::lambda::Functions,
    /// What is still to be brought to its target.
    pub deliveries: Arc<crate::deliveries::Deliveries>,
    /// Ticks of schedules and rules.
    pub timers: Arc<crate::scheduler::timers::Timers>,
    /// Receivers that wait at queues.
    pub queue_waiters: crate::sqs::Waiters,
    /// Drives training jobs.
    pub training: TrainingDriver,
    /// Drives executions of pipelines.
    pub pipelines: PipelineDriver,
    /// Drives clusters of EMR.
    pub clusters: crate::emr::Clusters,
    /// Drives validations of model packages.
    pub validations: ValidationDriver,
    /// Drives transform jobs.
    pub transform: TransformDriver,
    /// Drives endpoints.
    pub endpoints: EndpointController,
    /// Tells who scales endpoints of changes.
    pub scaling: crate::autoscaling::Scaling,
    /// Wakes who drives shadow tests.
    pub inference_experiments: crate::inference_experiments::Bell,
    /// What the open inference protocols have found out about endpoints.
    pub open_protocols: crate::open_protocols::OpenProtocols,
}

/// What [`App::open`] needs beside the settings.
pub struct Parts {
    /// Where time comes from.
    pub clock: Clock,
    /// Runs workloads.
    pub executor: Arc<dyn Executor>,
    /// Endpoint URL that clients and jobs use.
    pub endpoint: String,
    /// Certificate that clients must trust, where the server made it.
    pub ca_bundle: Option<PathBuf>,
    /// What the machine has for jobs.
    pub machine: Machine,
}

/// Why the server cannot start; a text for a person.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

impl StartError {
    /// A text for the person who starts the server.
    pub fn new(text: impl Into<String>) -> StartError {
        StartError(text.into())
    }
}

impl App {
    /// Opens the data directory of `config`, which the caller has locked, and takes up what an earlier server left.
    ///
    /// # Errors
    /// When something under the data directory cannot be opened, or an image overlay is wrong.
    pub async fn open(config: Config, parts: Parts) -> Result<Arc<App>, StartError> {
        let text = |error: &dyn std::fmt::Display| StartError(error.to_string());
        let catalogue = Catalogue::load(&config.images).map_err(|error| text(&error))?;
        let data_dir = config.data_dir.clone();
        let directory = |name: &str| data_dir.join(name);
        let clock = parts.clock;
        let database = Database::open(&directory("modelyard.db")).map_err(|error| text(&error))?;
        let key = crate::identity::prepare(&database, &config.account, clock.now_ms())
            .await
            .map_err(|error| text(&error))?;
        let keys = KeyStore::open(database.clone(), &directory("keys/master.key"), clock.clone())
            .await
            .map_err(|error| text(&error))?;
        let objects = ObjectStore::open(database.clone(), directory("buckets"), clock.clone(), keys.clone())
            .await
            .map_err(|error| text(&error))?;
        let connector = Arc::new(remote::S3Connector::new(clock.clone()));
        objects.connect_remotes(connector, config.remote_cache_gib << 30);
        let logs = LogStore::open(database.clone(), directory("logs"), clock.clone())
            .map_err(|error| text(&error))?;
        let metrics = MetricStore::open(database.clone(), directory("metrics"), clock.clone())
            .map_err(|error| text(&error))?;
        let metrics = Arc::new(metrics);
        let identity = Identity::open(database.clone(), clock.clone()).await.map_err(|error| text(&error))?;
        let connection = Connection {
            endpoint: parts.endpoint,
            region: config.region.clone(),
            account: key.account,
            access_key_id: key.access_key_id,
            secret_access_key: key.secret_access_key,
            ca_bundle: parts.ca_bundle,
        };
        crate::hook::install(&config.data_dir).map_err(|error| text(&error))?;
        crate::workloads::install_model_host(&config).map_err(|error| text(&error))?;
        let environments = crate::workloads::environments(&config);
        let capacity =
            Capacity::new(parts.machine, config.capacity.clone(), config.parallel_jobs, clock.clone());
        let containers = Containers::new(config.containers.clone(), config.search_path.clone());
        let app = Arc::new_cyclic(|app| App {
            training: TrainingDriver::new(app.clone()),
            pipelines: PipelineDriver::new(app.clone()),
            validations: ValidationDriver::new(app.clone()),
            transform: TransformDriver::new(
                app.clone(),
                directory("transform-sockets"),
                parts.executor.clone(),
            ),
            endpoints: EndpointController::new(
                app.clone(),
                directory("sockets"),
                parts.executor.clone(),
                &config.endpoints,
                capacity.machine_memory_bytes(),
            ),
            config,
            clock,
            database,
            objects: Arc::new(objects),
            keys,
            logs: Arc::new(logs),
            metric_sink: MetricSink::start(metrics.clone()),
            metrics,
            alarms: Arc::default(),
            requests: Arc::default(),
            sizes: Sizes::default(),
            identity,
            catalogue,
            environments,
            capacity,
            containers,
            executor: parts.executor,
            functions: Default::default(),
            deliveries: Default::default(),
            timers: Default::default(),
            queue_waiters: Default::default(),
            clusters: Default::default(),
            scaling: Default::default(),
            inference_experiments: Default::default(),
            open_protocols: Default::default(),
            connection,
        });
        app.endpoints.resume().await.map_err(|error| text(&error))?;
        app.training.resume(&app).await.map_err(|error| text(&error))?;
        crate::training::warm_pool::resume(&app).await.map_err(|error| text(&error))?;
        app.transform.resume(&app).await.map_err(|error| text(&error))?;
        app.training.start();
        app.pipelines.start();
        app.validations.start();
        app.transform.start();
        crate::monitoring::expire_daily(&app);
        crate::kms::purge_hourly(&app);
        crate::sagemaker::experiments::purge(&app);
        crate::sqs::expire_hourly(&app);
        crate::lambda::resume(&app).await?;
        crate::retention::start(&app);
        crate::deliveries::start(&app);
        crate::eventbridge::start(&app);
        crate::scheduler::timers::start(&app);
        crate::emr::start(&app);
        crate::endpoints::metrics::start(&app);
        crate::autoscaling::start(&app);
        crate::monitoring::watch_alarms(&app);
        crate::async_inference::start(&app);
        crate::shadow::start(&app);
        crate::inference_experiments::start(&app);
        Ok(app)
    }
}

/// Every service that is spoken: those of AWS, and our own.
static SERVICES: LazyLock<Vec<&'static api::model::Service>> =
    LazyLock::new(|| api::SERVICES.iter().copied().chain([&crate::own_service::SERVICE]).collect());

/// The models of every service that is spoken.
pub fn services() -> &'static [&'static api::model::Service] {
    SERVICES.as_slice()
}

/// A function from a request, and who sent it where that is known, to an answer.
pub type Router =
    Arc<dyn Fn(Request<Body>, Option<Peer>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// The one entry for every protocol.
pub fn router(app: &Arc<App>) -> Router {
    let credentials: Arc<dyn wire::Credentials> = Arc::new(app.identity.clone());
    let authorize: Arc<dyn wire::Authorize> = Arc::new(crate::authorize::WithinAccount);
    let s3 = crate::s3::service(
        app.objects.clone(),
        credentials.clone(),
        authorize.clone(),
        app.config.region.clone(),
        app.training.input_changes().clone(),
    );
    let clock = app.clock.clone();
    let (own, requests) = (app.clone(), app.requests.clone());
    let front = Arc::new(wire::Front {
        state: app.clone(),
        registry: registry(),
        credentials,
        authorize,
        now_ms: Arc::new(move || clock.now_ms()),
        services: wire::Services::of(services()),
        s3,
        own: Arc::new(move |request| Box::pin(crate::own::answer(own.clone(), request))),
        observe: Arc::new(move |one| requests.count(one)),
        body_limit_bytes: 16 * 1024 * 1024,
        understood: wire::Understood::default(),
        own_values: app.config.capacity.instance_types.keys().cloned().collect(),
    });
    Arc::new(move |request, peer| {
        let front = front.clone();
        Box::pin(async move { front.handle(request, peer).await })
    })
}

/// Every operation that this release does.
pub fn registry() -> crate::Registry {
    let mut registry = crate::Registry::new();
    crate::sagemaker::routes(&mut registry);
    crate::sts::routes(&mut registry);
    crate::iam::routes(&mut registry);
    crate::kms::routes(&mut registry);
    crate::logs::routes(&mut registry);
    crate::monitoring::routes(&mut registry);
    crate::autoscaling::routes(&mut registry);
    crate::sqs::routes(&mut registry);
    crate::lambda::routes(&mut registry);
    crate::eventbridge::routes(&mut registry);
    crate::scheduler::routes(&mut registry);
    crate::glue::routes(&mut registry);
    crate::emr::routes(&mut registry);
    crate::emr_serverless::routes(&mut registry);
    crate::query::routes(&mut registry);
    crate::sns::routes(&mut registry);
    crate::async_inference::queue_view::routes(&mut registry);
    crate::own_service::routes(&mut registry);
    crate::endpoints::routes(&mut registry);
    crate::endpoints::compare::routes(&mut registry);
    crate::endpoints::rollout::view::routes(&mut registry);
    crate::retention::operation::routes(&mut registry);
    crate::training::routes(&mut registry);
    crate::events::list::routes(&mut registry);
    crate::registry::history::routes(&mut registry);
    crate::pipelines::explain::routes(&mut registry);
    crate::capture::replay::routes(&mut registry);
    crate::shadow::view::routes(&mut registry);
    registry
}
