//! Puts the parts together, in order, and takes them apart in the opposite one.
//!
//! ```text
//! state ▶ identity ▶ store ▶ broker ▶ MQTT ▶ owner ▶ listeners ▶ run.json, READY=1
//! SIGTERM: stop accepting ▶ waiting pushes get their answers, at most 20 s ▶ owner ▶ MQTT ▶ broker ▶ store
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::app::{App, Shared, plain};
use crate::broker::{BrokerError, Embedded};
use crate::config::{Config, ConfigError};
use crate::depot::Depot;
use crate::grants::Grants;
use crate::guard::guard;
use crate::identity::{Identity, IdentityError, Pair};
use crate::media::{Media, MediaError};
use crate::metrics::Metrics;
use crate::mqtt::{self, MqttError};
use crate::operate::{self, LogsWaiting};
use crate::owner::{Janitor, Owner};
use crate::schedule::{Core, Policy};
use crate::serve::{self, Server, TlsError};
use crate::state_dir::{lock, lock_folder, make_private, operator_token, remove};
use crate::store::{Store, StoreError};
use crate::{api, enroll, housekeep, nodes, page, playback, push, secret};

/// How long pushes may take to end once the daemon was told to stop.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot {verb} {path}: {source}")]
    State { verb: &'static str, path: PathBuf, source: std::io::Error },
    #[error("another gateway uses {0}; stop it first, or give this one a folder of its own")]
    InUse(PathBuf),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Media(#[from] MediaError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Mqtt(#[from] MqttError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("cannot listen on {address} ({key}): {source}")]
    Listen { key: &'static str, address: SocketAddr, source: std::io::Error },
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

impl StartError {
    /// The exit code: 2 where starting again cannot help, 1 where it may.
    pub fn exit_code(&self) -> u8 {
        match self {
            StartError::Config(_)
            | StartError::InUse(_)
            | StartError::Identity(_)
            | StartError::Store(StoreError::Newer { .. })
            | StartError::Mqtt(_)
            | StartError::Tls(_) => 2,
            // A full disk, most likely.
            StartError::Store(
                StoreError::Open { .. } | StoreError::Sql(_) | StoreError::NotStored(_) | StoreError::Gone,
            )
            | StartError::State { .. }
            | StartError::Media(_)
            | StartError::Broker(_)
            | StartError::Listen { .. }
            | StartError::Random(_) => 1,
        }
    }
}

/// Addresses of a running gateway, in `state_dir/run.json` for programs beside it.
#[derive(Debug, Serialize)]
struct Run {
    http: SocketAddr,
    nodes: SocketAddr,
    broker: String,
    pid: u32,
}

/// Runs the gateway until `stop`.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), StartError> {
    let dir = &config.state_dir;
    let state = |verb, path: &Path| {
        let path = path.to_owned();
        move |source| StartError::State { verb, path, source }
    };
    make_private(dir).map_err(state("make", dir))?;
    let _lock = lock(dir)?;
    let run_file = dir.join("run.json");
    remove(&run_file).map_err(state("remove", &run_file))?;
    let operator_token = operator_token(dir)?;

    let listen = async |key, address: SocketAddr| {
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|source| StartError::Listen { key, address, source })?;
        let bound = listener.local_addr().map_err(|source| StartError::Listen { key, address, source })?;
        Ok::<_, StartError>((listener, bound))
    };
    let (http_listener, http) = listen("http.listen", config.http.listen).await?;
    let (nodes_listener, nodes_address) = listen("nodes.listen", config.nodes.listen).await?;

    let nodes_host = advertised(config.nodes.advertise_host.as_deref(), config.nodes.listen);
    let broker_host = advertised(config.broker.advertise_host.as_deref(), config.broker.listen);
    let own_broker = config.broker.advertise_host.as_ref().filter(|_| config.broker.url.is_none());
    for (table, host, listen) in [
        ("nodes", config.nodes.advertise_host.as_ref(), config.nodes.listen),
        ("broker", own_broker, config.broker.listen),
    ] {
        // Right where something forwards to it, and otherwise a fleet that nobody can join.
        if let Some(host) = host.filter(|_| listen.ip().is_loopback()) {
            tracing::warn!(table, host, %listen, "nodes are told another host than the one this listens on");
        }
    }
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    for name in [hostname(), nodes_host.clone(), broker_host.clone()] {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let identity = Arc::new(Identity::open(&dir.join("ca"), &config.fleet, &names)?);
    let (store, mut remembered, threads) = Store::open(&dir.join("gateway.db"))?;
    let media_dir = config.media_dir()?;
    let media = Media::open(&media_dir, config.media.cache_bytes())?;
    let _media_lock = lock_folder(&media_dir)?;
    match housekeep::sweep(&store, &media, Duration::ZERO).await {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "removed media of unfinished segments"),
        Err(error) => tracing::warn!(%error, "media not swept"),
    }

    let bundles = dir.join("bundles");
    let depot =
        Depot::open(bundles.clone(), config.limits.max_bundle_mib).map_err(state("prepare", &bundles))?;

    // The broker outlives the owner: its own token, cancelled last.
    let broker_stop = CancellationToken::new();
    let mut supervisor = None;
    let (settings, broker_address) = match config.broker_url()? {
        Some((host, port)) => {
            let settings = external(&config, &identity, host.clone(), port)?;
            (settings, (host, port))
        }
        None => {
            let embedded = Embedded::prepare(
                &dir.join("broker"),
                &config.broker.mosquitto,
                config.broker.listen,
                &config.fleet,
                &identity,
            )
            .await?;
            let address = embedded.listen;
            let running = embedded.start().await?;
            supervisor = Some(tokio::spawn(embedded.supervise(running, broker_stop.clone())));
            let host =
                if address.ip().is_unspecified() { "127.0.0.1".into() } else { address.ip().to_string() };
            let settings = mqtt::Settings {
                host,
                port: address.port(),
                ca_pem: identity.ca_pem.clone(),
                identity: identity.gateway.clone(),
                fleet: config.fleet.clone(),
            };
            (settings, (broker_host, address.port()))
        }
    };
    let mqtt_stop = CancellationToken::new();
    // A full queue makes the poller wait, and the broker keep what comes.
    let (incoming, messages) = mpsc::channel(256);
    let publisher = mqtt::start(&settings, incoming, mqtt_stop.clone())?;

    let metrics = Arc::new(Metrics::default());
    let broker_up = Arc::new(AtomicBool::new(false));
    let grants = Grants::default();
    let (janitor, janitor_task) = Janitor::start(media.clone());
    let (campaigns, configs) =
        (std::mem::take(&mut remembered.campaigns), std::mem::take(&mut remembered.configs));
    let owner = Owner {
        campaigns,
        configs,
        core: Core::new(policy(&config), remembered),
        fleet: config.fleet.clone(),
        store: store.clone(),
        media: media.clone(),
        grants: grants.clone(),
        janitor: janitor.clone(),
        publisher,
        metrics: Arc::clone(&metrics),
        broker_up: Arc::clone(&broker_up),
    };
    let (handle, owner_task) = owner.start(messages, stop.clone(), PATIENCE);

    let app: Shared = Arc::new(App {
        fleet: config.fleet.clone(),
        limits: config.limits.clone(),
        default_ladder: config.default_ladder()?,
        push_token: config.push_token()?,
        operator_token,
        owner: handle,
        store: store.clone(),
        media: media.clone(),
        grants,
        janitor,
        metrics,
        identity: Arc::clone(&identity),
        broker_up,
        nodes_url: format!("https://{}:{}", bracketed(&nodes_host), nodes_address.port()),
        broker_host: broker_address.0.clone(),
        broker_port: broker_address.1,
        shown: api::Shown::default(),
        subscribers: Arc::new(Semaphore::new(64)),
        enrolments: enroll::Pace::default(),
        depot: depot.clone(),
        uploads: Semaphore::new(2),
        logs: LogsWaiting::default(),
        stop: stop.clone(),
    });
    // Nodes may still put their last renditions while waiting pushes end.
    let nodes_stop = CancellationToken::new();
    let connections = config.limits.connections;
    let tls = Some(serve::tls(&identity)?);
    let http_server =
        Server { app: public(Arc::clone(&app)), tls: None, connections, takes: Some(serve::TAKES) };
    let nodes_server = Server { app: nodes::router(Arc::clone(&app)), tls, connections, takes: None };
    let http_task = tokio::spawn(http_server.run(http_listener, stop.clone()));
    let nodes_task = tokio::spawn(nodes_server.run(nodes_listener, nodes_stop.clone()));
    let keep = Duration::from_secs(config.media.keep_minutes() * 60);
    let keeper = tokio::spawn(housekeep::run(store.clone(), media.clone(), keep, stop.clone()));

    let sweeper = tokio::spawn(housekeep::sweep_bundles(depot, app.owner.clone(), stop.clone()));

    let broker = format!("{}:{}", bracketed(&settings.host), settings.port);
    let run = Run { http, nodes: nodes_address, broker, pid: std::process::id() };
    wait_for_broker(&app, &stop).await;
    // Plain data always becomes JSON.
    let text = serde_json::to_vec_pretty(&run).unwrap_or_default();
    secret::write_file(&run_file, &text, 0o644).map_err(state("write", &run_file))?;
    tracing::info!(%http, nodes = %nodes_address, broker = run.broker, "ready");
    notify(&[sd_notify::NotifyState::Ready]);
    let watchdog = tokio::spawn(watchdog(Arc::clone(&app)));

    stop.cancelled().await;
    tracing::info!("stopping");
    notify(&[sd_notify::NotifyState::Stopping]);
    watchdog.abort();
    drop(app);
    ended("owner", owner_task, PATIENCE + Duration::from_secs(2)).await;
    ended("http", http_task, Duration::from_secs(3)).await;
    nodes_stop.cancel();
    ended("nodes", nodes_task, Duration::from_secs(2)).await;
    mqtt_stop.cancel();
    ended("housekeeping", keeper, Duration::from_secs(2)).await;
    ended("bundles", sweeper, Duration::from_secs(2)).await;
    broker_stop.cancel();
    if let Some(supervisor) = supervisor {
        ended("broker", supervisor, Duration::from_secs(6)).await;
    }
    ended("media", janitor_task, Duration::from_secs(2)).await;
    drop(store);
    let joined = tokio::task::spawn_blocking(move || threads.join());
    if tokio::time::timeout(Duration::from_secs(3), joined).await.is_err() {
        tracing::warn!("the database did not end in time");
    }
    if let Err(error) = remove(&run_file) {
        tracing::warn!(%error, "run.json stays");
    }
    Ok(())
}

fn public(app: Shared) -> Router {
    Router::new()
        .merge(push::router())
        .merge(playback::router())
        .merge(api::router())
        .merge(operate::router())
        .with_state(Arc::clone(&app))
        .merge(page::router())
        .fallback(async || plain(StatusCode::NOT_FOUND, "404 page not found"))
        .layer(axum::middleware::from_fn_with_state(app, guard))
}

async fn ended(what: &str, task: tokio::task::JoinHandle<()>, within: Duration) {
    let abort = task.abort_handle();
    match tokio::time::timeout(within, task).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(what, %error, "a part of the gateway failed"),
        Err(_) => {
            abort.abort();
            tracing::warn!(what, "did not end in time");
        }
    }
}

/// The gateway is ready once its broker session stands; a slow external broker only delays that a little.
async fn wait_for_broker(app: &App, stop: &CancellationToken) {
    for _ in 0..500 {
        if app.broker_up.load(std::sync::atomic::Ordering::Relaxed) || stop.is_cancelled() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tracing::warn!("the broker is not connected yet; going on without it");
}

async fn watchdog(app: Shared) {
    let Some(every) = sd_notify::watchdog_enabled() else { return };
    loop {
        tokio::time::sleep(every / 3).await;
        // Only a gateway whose owner answers is alive.
        if app.owner.nodes().await.is_ok() {
            notify(&[sd_notify::NotifyState::Watchdog]);
        }
    }
}

fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "service manager not told");
    }
}

fn policy(config: &Config) -> Policy {
    Policy {
        fleet: config.fleet.clone(),
        attempts: config.retry.attempts,
        accept_ms: config.retry.accept_seconds * 1000,
        progress_ms: config.retry.progress_seconds * 1000,
        runtime_factor: config.retry.runtime_factor,
        runtime_min_ms: config.retry.runtime_min_seconds * 1000,
        deadline_ms: config.retry.deadline_seconds * 1000,
        absent_ms: config.retry.absent_seconds * 1000,
        streams: config.limits.streams,
        in_flight_per_stream: config.limits.in_flight_per_stream,
        waiting: config.limits.waiting,
    }
}

fn external(
    config: &Config,
    identity: &Identity,
    host: String,
    port: u16,
) -> Result<mqtt::Settings, StartError> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|source| StartError::State {
            verb: "read",
            path: path.to_owned(),
            source,
        })
    };
    let broker = &config.broker;
    let ca_pem = broker.ca_file.as_deref().map(read).transpose()?.unwrap_or_else(|| identity.ca_pem.clone());
    let own = match (&broker.cert_file, &broker.key_file) {
        (Some(certificate), Some(key)) => Pair { certificate: read(certificate)?, key: read(key)? },
        (Some(_), None) | (None, Some(_)) | (None, None) => identity.gateway.clone(),
    };
    Ok(mqtt::Settings { host, port, ca_pem, identity: own, fleet: config.fleet.clone() })
}

fn hostname() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "localhost".into())
}

fn advertised(told: Option<&str>, listen: SocketAddr) -> String {
    match told {
        Some(host) => host.to_owned(),
        None if listen.ip().is_unspecified() => hostname(),
        None => listen.ip().to_string(),
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}
