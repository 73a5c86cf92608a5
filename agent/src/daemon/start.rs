//! Makes the daemon of what is on the disk, runs its loop, and ends it.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_protocol::message::NodeState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::asked::Configuring;
use super::updating::Updating;
use super::{Daemon, DaemonError, PULSE, encode, status};
use crate::board;
use crate::clock::Stamp;
use crate::config::Config;
use crate::exit::Exit;
use crate::helper::Helper;
use crate::identity::Identity;
use crate::lane::{self, Shop};
use crate::media::Media;
use crate::mqtt::{self, Settings};
use crate::node::Node;
use crate::outbox::Store;
use crate::overlay::Overlay;
use crate::quarantine::{self, Quarantine};
use crate::spare::Spare;
use crate::system::wire::Request;

/// Reports of lanes that wait for the owner. Full: a lane waits; its worker's output waits with it.
const REPORTS: usize = 64;
/// Results of tasks beside the loop. Full: they wait.
const ASIDE: usize = 16;
/// After a boot that did not begin.
const REBOOT_PAUSE: Duration = Duration::from_secs(10);

/// What a start has read from the disk.
pub(crate) struct Setup {
    pub(crate) config: Config,
    /// The node's own configuration as it is written.
    pub(crate) file: toml::Table,
    pub(crate) overlay: Overlay,
    pub(crate) identity: Identity,
    pub(crate) worker: PathBuf,
}

/// Runs until it is told to end.
pub(crate) async fn run(setup: Setup) -> Result<Exit, DaemonError> {
    let Setup { config, file, overlay, identity, worker } = setup;
    let started = Instant::now();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = %identity.node.node,
        fleet = %identity.node.fleet,
        worker = %worker.display(),
        "starting"
    );
    let boot_id = board::boot_id();
    let stamp = Arc::new(Stamp::new(boot_id.clone()));
    let certificate = native_tls::Identity::from_pkcs8(&identity.certificate, &identity.key)?;
    let tls = native_tls::TlsConnector::builder()
        .disable_built_in_roots(true)
        .add_root_certificate(native_tls::Certificate::from_pem(&identity.ca)?)
        .identity(certificate)
        .build()?;
    let will = {
        let stamp = stamp.clone();
        Box::new(move || encode(&status(&stamp, NodeState::Offline)))
    };
    let (poller, inbox) = mqtt::session(Settings {
        node: identity.node.clone(),
        tls: tls.clone(),
        proxy: config.proxy.clone(),
        keep_alive: Duration::from_secs(config.mqtt.keep_alive_seconds),
        session_expiry_s: config.mqtt.session_expiry_seconds,
        will,
    });
    // First of all, so that the handshake goes on while the rest is made ready.
    let poller = tokio::spawn(poller);

    let mut id = [0; 8];
    openssl::rand::rand_bytes(&mut id)?;
    let id = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let (store, outbox) = Store::open(&config.state_dir, id)?;
    let machine = board::board("");
    let limits = config.limits.wire(&machine);
    let quarantine = Quarantine::new(&boot_id, quarantine::load(&config.state_dir));
    let (avoid, avoided) = watch::channel(quarantine.avoid());
    let silence = Duration::from_secs(config.deadlines.transfer_silence_seconds);
    let shop = Shop {
        media: Media::new(
            &identity.node.gateway_url,
            tls,
            config.proxy.as_ref(),
            limits.max_input_bytes,
            silence,
        )?,
        spare: Spare::new(&worker, config.limits.spare_worker(&machine)),
        sessions: Arc::default(),
        avoid: avoided,
        in_flight: limits.in_flight,
        idle: config.limits.worker_idle(),
        start: Duration::from_secs(config.deadlines.worker_start_seconds),
        silence: Duration::from_secs(config.deadlines.worker_silence_seconds),
        life: lane::Life {
            segments: config.limits.worker_segments,
            memory: config.limits.worker_memory_mib * 1024 * 1024,
            age: Duration::from_secs(config.limits.worker_age_minutes * 60),
        },
    };
    let (reports, reports_out) = mpsc::channel(REPORTS);
    let (tell, told) = mpsc::channel(ASIDE);
    let helper = Helper::new(&config.system.socket);
    let (updating, left) = Updating::new(helper.clone(), &config.state_dir);
    let config_limit = Duration::from_secs(config.deadlines.config_seconds);
    let watchdog = sd_notify::watchdog_enabled().map_or(PULSE, |limit| (limit / 2).min(PULSE));
    let mut daemon = Daemon {
        node: Node::new(limits, config.limits.worker_idle(), outbox.known_attempts()),
        identity: identity.node,
        stamp,
        worker,
        shop: Arc::new(shop),
        limits,
        quarantine,
        avoid,
        outbox,
        store: Some(store),
        writing: None,
        disk_pause: None,
        inbox,
        publisher: None,
        probing: None,
        probe_due: None,
        probe_replies: Vec::new(),
        report: None,
        lanes: JoinSet::new(),
        lane_ids: HashMap::new(),
        jobs: BTreeMap::new(),
        running: HashMap::new(),
        reports,
        reports_out,
        updating,
        configuring: Configuring::new(overlay, file, config_limit),
        tell,
        told,
        terminate: signal(SignalKind::terminate()).map_err(DaemonError::Signals)?,
        interrupt: signal(SignalKind::interrupt()).map_err(DaemonError::Signals)?,
        telemetry_due: started + Duration::from_secs(config.telemetry.interval_seconds),
        pulse_due: started,
        pulse: watchdog,
        ready: false,
        started,
        exit: None,
        config,
    };
    daemon.settle_the_past()?;
    daemon.ask_helper(Duration::ZERO);
    daemon.carry_out(left)?;
    // What the version before has proved in this boot says nothing of the one on trial.
    daemon.start_probe(daemon.updating.is_on_trial());
    while daemon.exit.is_none() {
        let happening = daemon.next().await;
        daemon.handle(happening)?;
        daemon.look()?;
        daemon.configure()?;
        daemon.flush()?;
    }
    let exit = daemon.exit.unwrap_or(Exit::Internal);
    daemon.close(poller).await?;
    if exit == Exit::Reboot
        && let Err(fault) = helper.ask(&Request::Reboot, |_| {}).await
    {
        tracing::error!(reason = fault.text, "this board is not booted anew");
        // Started anew by the service manager, and not at once: an update tries it again.
        tokio::time::sleep(REBOOT_PAUSE).await;
        return Ok(Exit::Internal);
    }
    Ok(exit)
}
