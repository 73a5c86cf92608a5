//! What a board with the reference image must live through. Each is one function with a sentence as its name; one
//! begins where the one before ended: with a board that is up and connected.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::proxy::a_board_behind_a_proxy_enrols_and_works_through_it_alone;
use super::rig::{self, BLIND, HEALTH, NODE, OVER, Rig, SOON, UPDATED, word};
use super::{BOOTED, read_from_card};

/// A scenario's facts, for the report; with `skipped`, why it could not be tried.
pub(super) type Told = Result<Value>;
type Step = for<'a> fn(&'a mut Rig, &'a Amount) -> Pin<Box<dyn Future<Output = Told> + 'a>>;

/// Longest time for a probe on the emulated board.
const PROBED: Duration = Duration::from_secs(600);

/// How much of what takes long.
#[derive(Debug, Clone)]
pub struct Amount {
    pub cuts: u32,
    pub idle: Duration,
}

#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    /// Part of the short run.
    pub short: bool,
    /// Names of the bundles that it needs; `cross/image/trial-bundles.sh` makes them.
    pub bundles: &'static [&'static str],
    pub step: Step,
}

macro_rules! scenarios {
    ($($name:ident $short:literal [$($bundle:literal)*]),* $(,)?) => {
        /// All, in their order.
        pub const ALL: &[Scenario] = &[$(Scenario {
            name: stringify!($name),
            short: $short,
            bundles: &[$($bundle),*],
            step: |rig, amount| Box::pin($name(rig, amount)),
        }),*];
    };
}

scenarios! {
    a_flashed_board_enrols_by_its_file_and_forgets_the_token true [],
    a_board_takes_a_job true [],
    a_board_takes_a_job_on_the_virtual_codec true [],
    a_board_joins_the_wifi_of_its_file false [],
    a_board_behind_a_proxy_enrols_and_works_through_it_alone false [],
    an_operator_asks_for_its_log_another_configuration_and_a_reboot false [],
    an_update_is_installed_proves_itself_and_stays true ["good"],
    an_update_whose_agent_never_speaks_is_taken_back true ["mute"],
    an_update_whose_worker_proves_no_codec_is_taken_back false ["blind"],
    an_update_that_hangs_the_kernel_is_taken_back_by_the_watchdog true ["hanging"],
    an_update_whose_kernel_cannot_be_loaded_is_taken_back true ["unloadable"],
    an_update_that_cannot_mount_its_data_is_taken_back false ["dataless"],
    a_bundle_of_a_stranger_is_refused true ["stranger"],
    a_bundle_for_another_board_is_refused true ["other-board"],
    a_bundle_that_is_cut_off_or_damaged_is_refused false ["cut" "better" "damaged"],
    a_full_data_partition_stops_an_update_and_not_the_board true ["good" "better"],
    power_cuts_during_updates_end_on_a_whole_slot true ["good" "better"],
    power_cuts_during_jobs_lose_no_answer true [],
    flash_writes false [],
}

/// Every board begins so; the others need it.
pub const FIRST: &str = "a_flashed_board_enrols_by_its_file_and_forgets_the_token";

async fn a_flashed_board_enrols_by_its_file_and_forgets_the_token(rig: &mut Rig, _: &Amount) -> Told {
    let card = rig.card();
    let before = read_from_card(&card, "headwater.toml")?.context("no headwater.toml on the card")?;
    let token = before.split('"').nth(1).context("no token")?.to_owned();
    let secret = rig::secret_of(&token)?;
    ensure!(rig.board.slot_started(BOOTED)? == 'A');
    rig.say("GRUB starts slot A");
    rig.connected_anew().await?;
    let connected = rig.since_switched_on().as_secs_f64();
    rig.say(&format!("connected {connected:.1} s after it was switched on, {}", busy()?));
    rig.board.wait_ssh(BOOTED)?;
    rig.board.ask("sync")?;
    rig.board.disk.flush()?;
    let after = read_from_card(&card, "headwater.toml")?.context("headwater.toml is gone")?;
    ensure!(!after.contains("hw1/") && after.contains("board-of-north"), "{after}");
    ensure!(!rig::holds(&card, &secret)?, "the token's secret is somewhere on the card");
    ensure!(read_from_card(&card, "headwater-error.txt")?.is_none(), "there is a complaint on the card");
    let system = rig.board.ask(
        "hostname; df -m /data | tail -1 | awk '{print $2}'; findmnt -no OPTIONS /; \
         systemctl is-active headwater-agent; cat /sys/class/watchdog/watchdog0/state; df -m / | tail -1 | awk '{print $3}'",
    )?;
    let lines: Vec<&str> = system.lines().map(str::trim).collect();
    let [name, data, root, agent, watchdog, used] = lines[..] else { anyhow::bail!("{system}") };
    ensure!(name == "board-of-north", "{name}");
    ensure!(data.parse::<u64>()? > 1500, "the data partition did not grow: {data} MB");
    ensure!(root.starts_with("ro,"), "the root can be written: {root}");
    ensure!((agent, watchdog) == ("active", "active"), "agent {agent}, watchdog {watchdog}");
    ensure!(used.parse::<u64>()? <= 400, "the slot holds {used} MB");
    rig.proved().await?;
    rig.say("proved what it can do");
    Ok(json!({ "data_mb": data, "slot_used_mb": used, "boot_to_connected_s": connected }))
}

/// What else this machine does, without which no time says anything.
fn busy() -> Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(format!("load {}", text.split(' ').next().unwrap_or_default()))
}

async fn a_board_takes_a_job(rig: &mut Rig, _: &Amount) -> Told {
    const LADDER: &str = r#"{"profiles":[
        {"name":"large","width":320,"height":180,"bitrate":300000,"fps":0,"profile":"H264ConstrainedHigh","gop":"1"},
        {"name":"small","width":160,"height":90,"bitrate":100000,"fps":0,"profile":"H264ConstrainedHigh","gop":"1"}]}"#;
    let input = crate::media::segment(&rig.setting.folder, 1, "320x180", "10", 1.0)?;
    let answer = rig.fleet.push_apart("ladder", "1.ts", LADDER, input).await??;
    rig.renditions(&answer, &[(320, 180), (160, 90)])?;
    Ok(Value::Null)
}

/// The generic V4L2 profile on a driver that comes while the agent runs: each element's device is opened by a worker in
/// the agent's own unit, with no more rights than on a board with a real codec.
async fn a_board_takes_a_job_on_the_virtual_codec(rig: &mut Rig, _: &Amount) -> Told {
    // It takes no smaller pictures than 640x360, of whole blocks, and knows no bitrate.
    const FWHT: &str = r#"{"profiles":[{"name":"virtual","width":768,"height":432,"quality":30,"fps":0,
        "encoder":"FWHT","gop":"1"}]}"#;
    let Some(modules) = rig.virtual_drivers()? else {
        return Ok(json!({ "skipped": "Debian does not give the sources of the image's kernel" }));
    };
    rig.board.put(&modules.join("vicodec.ko"), "/tmp/vicodec.ko")?;
    // It stands on drivers of the image.
    let load = "modprobe -a v4l2-mem2mem videobuf2-vmalloc && insmod /tmp/vicodec.ko && udevadm settle";
    rig.board.ask(load)?;
    rig.asked(&["probe", NODE])?;
    let has = |node: &Value, kind: &str, element: &str| {
        let mut all = node["birth"]["capabilities"].as_array().into_iter().flatten();
        all.any(|one| one["kind"] == kind && one["codec"] == "fwht" && one["element"] == element)
    };
    let proved = |node: &Value| has(node, "encode", "v4l2fwhtenc");
    let node = rig.until("proved on the virtual codec", PROBED, proved).await?;
    // GStreamer 1.22 loses pictures in it; a probe then refuses it.
    let decodes = has(&node, "decode", "v4l2fwhtdec");
    rig.say("proved the virtual codec");
    let input = crate::media::segment(&rig.setting.folder, 5, "320x180", "10", 1.0)?;
    let answer = rig.fleet.push_apart("virtual", "5.ts", FWHT, input).await??;
    let parts = answer.parts()?;
    ensure!(parts.len() == 1, "{} renditions", parts.len());
    let frames = crate::media::fwht_frames(&parts[0].data);
    ensure!(frames == [(768, 432); 10], "{frames:?}");
    rig.say("encoded with it");
    if decodes {
        // And back: only its decoder can read that.
        let answer = rig.fleet.push_apart("back", "6.ts", rig::SMALL, parts[0].data.clone()).await??;
        rig.whole(&answer)?;
        rig.say("decoded with it");
    }
    Ok(json!({ "fwht_bytes": parts[0].data.len(), "decodes": decodes }))
}

/// Two virtual radios: one is the board's, and the other is the house's.
async fn a_board_joins_the_wifi_of_its_file(rig: &mut Rig, _: &Amount) -> Told {
    // Nothing in it may be read as a command or as the end of a string.
    const WIFI: &str = "\n[wifi]\nssid = \"barn\"\npassword = 'hay, \"straw\" & $more'\n";
    const HOUSE: &str = r#"
        set -e
        printf '[Match]\nName=wlan1\n[Network]\nAddress=10.77.0.1/24\nDHCPServer=yes\n' >/tmp/house.network
        printf '[DHCPServer]\nEmitDNS=no\nEmitNTP=no\nEmitRouter=no\nEmitTimezone=no\n' >>/tmp/house.network
        mkdir -p /run/systemd/network
        mv /tmp/house.network /run/systemd/network/10-house.network
        networkctl reload
        modprobe mac80211
        insmod /tmp/mac80211_hwsim.ko radios=2
        echo 'network={' >/run/house.conf
        echo '  mode=2' >>/run/house.conf
        echo '  frequency=2412' >>/run/house.conf
        echo '  ssid="barn"' >>/run/house.conf
        echo '  key_mgmt=WPA-PSK' >>/run/house.conf
        echo '  psk="hay, "straw" & $more"' >>/run/house.conf
        echo '}' >>/run/house.conf
        wpa_supplicant -B -i wlan1 -c /run/house.conf"#;
    const JOINED: &str = r"for i in $(seq 120); do
            ip -4 -o addr show wlan0 | grep -o '10\.77\.0\.[0-9]*' | head -n 1 | grep . && exit 0
            sleep 1
        done
        exit 1";
    let Some(modules) = rig.virtual_drivers()? else {
        return Ok(json!({ "skipped": "Debian does not give the sources of the image's kernel" }));
    };
    let file = rig.board.ask("cat /boot/efi/headwater.toml")?;
    rig.board_file(&format!("{file}{WIFI}"))?;
    rig.reboot().await?;
    rig.board.put(&modules.join("mac80211_hwsim.ko"), "/tmp/mac80211_hwsim.ko")?;
    rig.board.ask(HOUSE)?;
    rig.say("the house has Wi-Fi");
    let joined = rig.board.run(JOINED, BOOTED)?;
    if !joined.status.success() {
        bail!("no address on wlan0:\n{}", rig.board.ask("ip addr; journalctl -b -u headwater-wifi -n 30")?);
    }
    let address = String::from_utf8_lossy(&joined.stdout).trim().to_owned();
    rig.say("the board has an address in it");
    // One line that must be in the journal, and what must not be.
    const TOLD: &str = r#"stat -c %a /run/headwater/wpa_supplicant.conf
        journalctl -b >/tmp/journal
        grep -q 'Wi-Fi "barn"' /tmp/journal && echo told
        grep -c straw /tmp/journal || true"#;
    let told = rig.board.ask(TOLD)?;
    ensure!(
        told.lines().eq(["600", "told", "0"]),
        "the password may be read by others, or is in the journal: {told}"
    );
    rig.board_file(&file)?;
    rig.reboot().await?;
    rig.proved().await?;
    Ok(json!({ "address": address }))
}

async fn an_operator_asks_for_its_log_another_configuration_and_a_reboot(rig: &mut Rig, _: &Amount) -> Told {
    let log = rig.asked(&["logs", NODE])?;
    ensure!(log.lines().count() > 3 && !log.contains("hw1/"), "{log}");
    // Nobody listens there: the board cannot come back with it, and takes it back by itself.
    let output = rig.fleet.headwater(&["config", "set", NODE, "proxy=http://10.0.2.2:9", "--wait", "10m"])?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(said.contains("the earlier one holds"), "a proxy that is not there: {said}");
    rig.until("online", BOOTED, |node| node["state"] == "online").await?;
    rig.asked(&["config", "unset", NODE, "proxy", "--wait", "10m"])?;
    rig.proved().await?;
    rig.asked(&["drain", NODE])?;
    rig.until("drained", BOOTED, |node| node["state"] == "draining").await?;
    rig.asked(&["resume", NODE])?;
    rig.until("online", BOOTED, |node| node["state"] == "online").await?;
    let before = rig.running()?;
    rig.reboot().await?;
    ensure!(rig.running()? == before);
    rig.job(5).await?;
    Ok(Value::String(said))
}

async fn an_update_is_installed_proves_itself_and_stays(rig: &mut Rig, _: &Amount) -> Told {
    let (before, _) = rig.running()?;
    rig.order("good", HEALTH).await?;
    let state = rig.ended().await?;
    ensure!(word(&state) == "done", "{state}");
    let (slot, version) = rig.running()?;
    ensure!(slot != before && version == "0.1.1", "slot {slot} runs {version}");
    rig.job(2).await?;
    // It stays, also when it is switched off and on more often than a slot on trial may be.
    for _ in 0..3 {
        rig.board.reset()?;
        ensure!(rig.board.slot_started(BOOTED)? == slot);
    }
    rig.connected_anew().await?;
    ensure!(rig.running()? == (slot, version));
    Ok(Value::Null)
}

async fn an_update_whose_agent_never_speaks_is_taken_back(rig: &mut Rig, _: &Amount) -> Told {
    taken_back(rig, "mute", SOON).await
}

async fn an_update_whose_worker_proves_no_codec_is_taken_back(rig: &mut Rig, _: &Amount) -> Told {
    taken_back(rig, "blind", BLIND).await
}

async fn taken_back(rig: &mut Rig, bundle: &str, health: &str) -> Told {
    let before = rig.running()?;
    rig.order(bundle, health).await?;
    let state = rig.ended().await?;
    ensure!(word(&state) == "rolled_back", "{state}");
    ensure!(rig.running()? == before);
    Ok(state)
}

async fn an_update_that_hangs_the_kernel_is_taken_back_by_the_watchdog(rig: &mut Rig, _: &Amount) -> Told {
    rig.board.watchdog_bit()?;
    let state = taken_back(rig, "hanging", HEALTH).await?;
    ensure!(rig.board.watchdog_bit()?, "the watchdog had nothing to do");
    Ok(state)
}

/// Nobody is there to type at the boot loader's prompt.
async fn an_update_whose_kernel_cannot_be_loaded_is_taken_back(rig: &mut Rig, _: &Amount) -> Told {
    taken_back(rig, "unloadable", HEALTH).await
}

async fn an_update_that_cannot_mount_its_data_is_taken_back(rig: &mut Rig, _: &Amount) -> Told {
    taken_back(rig, "dataless", HEALTH).await
}

/// A bundle that reaches the board, which takes nothing of it.
async fn refused(rig: &mut Rig, bundle: &str) -> Told {
    let before = (rig.running()?, rig.board.ask("cat /proc/sys/kernel/random/boot_id")?);
    rig.order(bundle, HEALTH).await?;
    let state = rig.ended().await?;
    ensure!(word(&state) == "failed", "{state}");
    ensure!(
        (rig.running()?, rig.board.ask("cat /proc/sys/kernel/random/boot_id")?) == before,
        "the board was started anew"
    );
    Ok(state)
}

async fn a_bundle_of_a_stranger_is_refused(rig: &mut Rig, _: &Amount) -> Told {
    refused(rig, "stranger").await
}

async fn a_bundle_for_another_board_is_refused(rig: &mut Rig, _: &Amount) -> Told {
    let before = rig.running()?;
    // The gateway knows better than to send it; RAUC refuses it where someone tries on the board itself.
    let path = rig.bundle("other-board");
    let path = path.to_str().context("a path that is not text")?;
    let output = rig.fleet.headwater(&["--json", "update", NODE, path, "--waves", "100%", "--dry-run"])?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    ensure!(said.contains("headwater-other-board"), "{said}");
    rig.board.put(&rig.bundle("other-board"), "/data/other-board.raucb")?;
    let output = rig.board.run(
        "rauc install /data/other-board.raucb; code=$?; rm /data/other-board.raucb; exit $code",
        BOOTED,
    )?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    ensure!(!output.status.success() && said.contains("ompatible"), "{}: {said}", output.status);
    ensure!(rig.running()? == before);
    Ok(Value::Null)
}

async fn a_bundle_that_is_cut_off_or_damaged_is_refused(rig: &mut Rig, _: &Amount) -> Told {
    let path = rig.bundle("cut");
    let path = path.to_str().context("a path that is not text")?;
    let output = rig.fleet.headwater(&["update", NODE, path, "--detach"])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success() && said.contains("cut off"), "{said}");
    // One that looks whole: the board finds it when it reads the block, and keeps the slot it runs.
    rig.order("better", HEALTH).await?;
    ensure!(word(&rig.ended().await?) == "done");
    let before = rig.running()?;
    rig.order("damaged", HEALTH).await?;
    let state = rig.ended().await?;
    ensure!(word(&state) == "failed", "{state}");
    rig.board.reset()?;
    rig.connected_anew().await?;
    ensure!(rig.running()? == before);
    Ok(state)
}

async fn a_full_data_partition_stops_an_update_and_not_the_board(rig: &mut Rig, _: &Amount) -> Told {
    let before = rig.running()?;
    rig.board.ask("dd if=/dev/zero of=/data/filler bs=1M 2>/dev/null; sync; df -m /data | tail -1 | awk '$4 < 5 { print \"full\" }' | grep full")?;
    let (bundle, _) = other(&before.1);
    rig.order(bundle, HEALTH).await?;
    let state = rig.ended().await?;
    ensure!(word(&state) == "failed", "{state}");
    rig.board.reset()?;
    rig.connected_anew().await?;
    ensure!(rig.running()? == before);
    rig.proved().await?;
    // Whether it takes work is its own to say; that it does again with room is what counts.
    let job = match tokio::time::timeout(Duration::from_secs(90), rig.job(3)).await {
        Ok(Ok(())) => "done".to_owned(),
        Ok(Err(error)) => format!("{error:#}"),
        Err(_) => "not within 90 s".to_owned(),
    };
    rig.board.ask("rm /data/filler; sync")?;
    // With room again it is as before.
    rig.job(4).await?;
    Ok(json!({ "update": state, "job_while_full": job }))
}

/// A bundle with another version than the one that runs.
fn other(version: &str) -> (&'static str, &'static str) {
    if version == "0.1.1" { ("better", "0.1.2") } else { ("good", "0.1.1") }
}

/// What an update goes through, and how many milliseconds each takes at least on a quiet machine. Cuts take them in
/// turn, each at a random moment of its own.
const STAGES: [(&str, u64); 4] =
    [("fetching", 2_000), ("installing", 20_000), ("restarting", 12_000), ("verifying", 15_000)];

async fn power_cuts_during_updates_end_on_a_whole_slot(rig: &mut Rig, amount: &Amount) -> Told {
    let mut going: Option<(&'static str, (char, String))> = None;
    let (mut lost, mut finished) = (0, 0);
    let mut met: BTreeMap<String, u32> = BTreeMap::new();
    for (cut, (stage, length)) in (1..=amount.cuts).zip(STAGES.iter().cycle()) {
        let (version, before) = match going.take() {
            Some(going) => going,
            None => {
                let before = rig.running()?;
                let (bundle, version) = other(&before.1);
                rig.order(bundle, HEALTH).await?;
                (version, before)
            }
        };
        // An update that a cut threw back comes to it again; one that is past it is cut where it is.
        let wanted = STAGES.iter().position(|(name, _)| name == stage);
        rig.update_until(stage, |word| {
            OVER.contains(&word) || STAGES.iter().position(|(name, _)| *name == word) >= wanted
        })
        .await?;
        let moment = Duration::from_millis(rig.dice.below(*length));
        tokio::time::sleep(moment).await;
        let standing = rig.standing(&rig.node().await?);
        let when = format!("cut {cut} of {}: {standing}, {:.1} s on", amount.cuts, moment.as_secs_f64());
        *met.entry(standing).or_default() += 1;
        lost += rig.power_cut(&when).await?;
        rig.board.wait_ssh(BOOTED)?;
        let now = rig.running()?;
        ensure!(now == before || now.1 == version, "before {before:?}, now {now:?}, wanted {version}");
        // Until its new connection has told more, this is the last that was heard.
        match rig.standing(&rig.node().await?).as_str() {
            "failed" => bail!("a power cut made the update fail: {}", rig.node().await?["update"]),
            over if OVER.contains(&over) => finished += 1,
            _ => going = Some((version, before)),
        }
    }
    if going.is_some() {
        let state = rig.ended().await?;
        ensure!(["done", "rolled_back"].contains(&word(&state)), "{state}");
    }
    // None of it is in the way of the next.
    let (bundle, _) = other(&rig.running()?.1);
    rig.order(bundle, HEALTH).await?;
    ensure!(word(&rig.ended().await?) == "done");
    if amount.cuts >= 20 {
        ensure!(lost > 0, "no cut took anything from the disk");
        let missed = STAGES.iter().find(|(stage, _)| !met.contains_key(*stage));
        ensure!(missed.is_none(), "no cut came in {missed:?}: {met:?}");
    }
    Ok(json!({
        "cuts": amount.cuts, "sectors_lost": lost, "updates_that_ended_on_the_way": finished, "cut_while": met,
    }))
}

async fn power_cuts_during_jobs_lose_no_answer(rig: &mut Rig, amount: &Amount) -> Told {
    let (mut lost, mut on_board) = (0, 0);
    for cut in 1..=amount.cuts {
        // Until then the gateway knows nobody for it.
        rig.proved().await?;
        let moment = Duration::from_millis(rig.dice.below(4_000));
        let fleet_job = rig.pushed(100 + cut)?;
        tokio::time::sleep(moment).await;
        on_board += u32::from(!fleet_job.is_finished());
        let when = format!("cut {cut} of {}: {:.1} s into a job", amount.cuts, moment.as_secs_f64());
        lost += rig.power_cut(&when).await?;
        // The gateway gives it again; its caller waits and gets one whole answer.
        let answer = tokio::time::timeout(UPDATED, fleet_job).await.context("no answer")??;
        rig.whole(&answer?)?;
    }
    ensure!(amount.cuts < 20 || on_board > 0, "every job was answered before its cut");
    Ok(json!({ "cuts": amount.cuts, "sectors_lost": lost, "jobs_not_answered_yet": on_board }))
}

async fn flash_writes(rig: &mut Rig, amount: &Amount) -> Told {
    rig.proved().await?;
    // What the start left to write is not of an idle board.
    rig.board.ask("sync")?;
    tokio::time::sleep(Duration::from_secs(150)).await;
    let before = rig.board.disk.written();
    rig.say(&format!("idle for {} s", amount.idle.as_secs()));
    let mut memory = Vec::new();
    for _ in 0..5 {
        tokio::time::sleep(amount.idle / 5).await;
        memory.extend(rig.node().await?["telemetry"]["agent_memory_bytes"].as_u64());
    }
    memory.sort_unstable();
    let memory = memory.get(memory.len() / 2).copied().context("no telemetry")?;
    let written = rig.board.disk.written() - before;
    let day = written as f64 * 86_400.0 / amount.idle.as_secs_f64();
    rig.say(&format!(
        "{written} bytes written: {:.2} MB a day if it goes on so; agent {memory} bytes",
        day / 1e6
    ));
    let hour = amount.idle >= Duration::from_secs(3600);
    let facts = json!({
        "seconds": amount.idle.as_secs(), "bytes_written": written, "megabytes_a_day": day / 1e6,
        "label": if hour { "measured over an hour or more" } else { "extrapolated from less than an hour" },
        "agent_memory_bytes": memory,
    });
    // Proportional, connected and idle, as the agent reads it.
    ensure!(memory <= 8_000_000, "{facts}");
    // A journal's commit more or less in a few minutes would decide; only an hour does.
    ensure!(!hour || day <= 1e6, "{facts}");
    Ok(facts)
}
