//! A gateway on this machine, and an emulated board that was enrolled by its `headwater.toml` and nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use headwater_protocol::enroll::Token;
use serde_json::Value;

use super::dice::Dice;
use super::disk::Disk;
use super::{BOOTED, Board, HOST, Parts, Plug, tail, write_on_card};
use crate::Fleet;
use crate::fleet::Options;
use crate::push::Answer;

/// The board's name in its fleet.
pub const NODE: &str = "north";
/// Longer than the image: the data partition has to grow.
const CARD: u64 = 3 << 30;
/// From a bundle's order to its end, with two boots.
pub const UPDATED: Duration = Duration::from_secs(1800);
/// How long a new version may take to prove itself: emulated, a probe takes minutes.
pub const HEALTH: &str = "12m";
/// The same for one that never will.
pub const SOON: &str = "45s";
/// For one that connects, and then proves nothing.
pub const BLIND: &str = "4m";
/// How an update ends.
pub const OVER: [&str; 3] = ["done", "rolled_back", "failed"];
/// A rendition that costs the emulated board little.
pub const SMALL: &str = r#"{"profiles":[{"name":"small","width":160,"height":90,"bitrate":100000,"fps":0,
    "profile":"H264ConstrainedHigh","gop":"1"}]}"#;
/// How `virtual-drivers.sh` ends where the kernel's sources cannot be had.
const UNAVAILABLE: i32 = 69;
/// The emulated processor is some 20 times slower than this one.
const PATIENCE: &str = "[retry]\naccept_seconds = 30\nprogress_seconds = 90\nruntime_min_seconds = 240\n\
                        deadline_seconds = 900\nattempts = 16\n\
                        absent_seconds = 300\n";

#[derive(Debug)]
pub struct Rig {
    pub setting: Setting,
    pub fleet: Fleet,
    pub board: Board,
    pub dice: Dice,
    /// Of the boot that was last seen connected.
    boot_id: String,
    started: Instant,
    switched_on: Instant,
    /// The newest update's id.
    order: String,
}

/// What is needed to start one.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Where `make image` left its work.
    pub image: PathBuf,
    pub bundles: PathBuf,
    pub folder: PathBuf,
    pub firmware: PathBuf,
    pub seed: u64,
}

impl Rig {
    /// A card is flashed, its `headwater.toml` written, and the board switched on; it is not waited for.
    pub async fn start(setting: &Setting, plug: Plug) -> Result<Self> {
        Self::flashed(setting, plug, HOST, "").await
    }

    /// The same with a gateway that the board knows as `host`, and more lines in its `headwater.toml`.
    pub(super) async fn flashed(setting: &Setting, plug: Plug, host: &str, lines: &str) -> Result<Self> {
        let folder = &setting.folder;
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder)?;
        let options = Options {
            advertise_host: Some(host.to_owned()),
            gateway_tables: PATIENCE.to_owned(),
            ..Options::nodes(&[])
        };
        let fleet = Fleet::gateway_only(&folder.join("fleet"), options).await?;
        let status = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "image-test", "-f"])
            .arg(folder.join("key"))
            .status()
            .context("ssh-keygen")?;
        ensure!(status.success(), "ssh-keygen: {status}");
        let card = folder.join("card.img");
        let disk = Disk::of(&setting.image.join("headwater-arm64.img"), &card, CARD)?;
        let key = fs::read_to_string(folder.join("key.pub"))?;
        let text = format!(
            "token = \"{}\"\r\nhostname = \"board-of-north\"\r\n# Nobody answers there, and nobody else is asked.\r\n\
             time_servers = [\"{HOST}\"]\r\n{lines}\r\n[ssh]\r\nkeys = [\"{}\"]\r\n",
            fleet.token(NODE)?,
            key.trim()
        );
        write_on_card(&card, "headwater.toml", &text, folder)?;
        let parts = Parts { folder: folder.clone(), firmware: setting.firmware.clone() };
        let switched_on = Instant::now();
        let board = Board::new(parts, disk, plug)?;
        Ok(Self {
            setting: setting.clone(),
            fleet,
            board,
            dice: Dice::new(setting.seed),
            boot_id: String::new(),
            started: Instant::now(),
            switched_on,
            order: String::new(),
        })
    }

    pub fn card(&self) -> PathBuf {
        self.setting.folder.join("card.img")
    }

    pub fn bundle(&self, name: &str) -> PathBuf {
        self.setting.bundles.join(format!("{name}.raucb"))
    }

    /// Folder of the virtual codec's and the virtual radio's driver for the image's kernel; none where Debian does not give
    /// its sources.
    pub fn virtual_drivers(&self) -> Result<Option<PathBuf>> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cross/image/virtual-drivers.sh");
        let output = Command::new(&script).arg(&self.setting.image).stderr(Stdio::inherit()).output();
        let output = output.with_context(|| script.display().to_string())?;
        if output.status.code() == Some(UNAVAILABLE) {
            return Ok(None);
        }
        ensure!(output.status.success(), "{}: {}", script.display(), output.status);
        Ok(Some(PathBuf::from(String::from_utf8(output.stdout)?.trim())))
    }

    /// A line for who waits.
    pub fn say(&self, text: &str) {
        println!("[{:7.1}]   {text}", self.started.elapsed().as_secs_f64());
    }

    pub fn since_switched_on(&self) -> Duration {
        self.switched_on.elapsed()
    }

    /// What the operator's command says, which must go well.
    pub fn asked(&self, arguments: &[&str]) -> Result<String> {
        let output = self.fleet.headwater(arguments)?;
        let (said, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(
            output.status.success(),
            "headwater {arguments:?} ended with {}: {said} {errors}",
            output.status
        );
        Ok(said.into_owned())
    }

    /// Puts `text` over the `headwater.toml` of the board that runs.
    pub fn board_file(&self, text: &str) -> Result<()> {
        let file = self.setting.folder.join("headwater.toml");
        fs::write(&file, text)?;
        self.board.put(&file, "/boot/efi/headwater.toml")
    }

    /// What the gateway knows of the board.
    pub async fn node(&self) -> Result<Value> {
        let nodes = self.fleet.get("/api/v1/nodes").await?;
        let mut all = nodes.as_array().into_iter().flatten();
        Ok(all.find(|node| node["node"] == NODE).cloned().unwrap_or(Value::Null))
    }

    /// Waits until `wanted` holds of what the gateway knows.
    pub async fn until(
        &mut self,
        what: &str,
        limit: Duration,
        mut wanted: impl FnMut(&Value) -> bool,
    ) -> Result<Value> {
        let deadline = Instant::now() + limit;
        loop {
            let node = self.node().await?;
            if wanted(&node) {
                return Ok(node);
            }
            self.board.alive()?;
            if Instant::now() > deadline {
                let tail = tail(&self.board.console());
                bail!("not {what} within {limit:?}: {node:#}\n{tail}\n{}", self.fleet.gateway.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until the board is connected after a boot that was not seen yet.
    pub async fn connected_anew(&mut self) -> Result<Value> {
        let before = self.boot_id.clone();
        let new =
            move |node: &Value| node["state"] == "online" && boot_id(node).is_some_and(|id| id != before);
        let node = self.until("connected after a boot", BOOTED, new).await?;
        self.boot_id = boot_id(&node).unwrap_or_default().to_owned();
        Ok(node)
    }

    /// Has the operator reboot the board, and waits until it is connected and lets us in again.
    pub async fn reboot(&mut self) -> Result<()> {
        self.asked(&["reboot", NODE])?;
        self.connected_anew().await?;
        self.board.wait_ssh(BOOTED)
    }

    /// Waits until the board's worker has proved what the board can do.
    pub async fn proved(&mut self) -> Result<()> {
        let proved = |node: &Value| {
            let birth = &node["birth"];
            let this_boot = birth["boot_id"] == node["telemetry"]["boot_id"];
            node["state"] == "online"
                && this_boot
                && birth["capabilities"].as_array().is_some_and(|all| !all.is_empty())
        };
        self.until("proved", UPDATED, proved).await.map(|_| ())
    }

    /// Takes the power away and gives it back, and waits for the board. Returns how many sectors were lost.
    pub async fn power_cut(&mut self, when: &str) -> Result<usize> {
        let sectors = self.board.cut_power(&mut self.dice)?;
        self.say(&format!("{when}; {sectors} sectors lost"));
        self.switched_on = Instant::now();
        self.board.switch_on()?;
        self.connected_anew().await?;
        Ok(sectors)
    }

    /// Switched off and on, after something went wrong; up and proved at the end.
    pub async fn start_anew(&mut self) -> Result<()> {
        self.power_cut("switched off and on").await?;
        self.proved().await
    }

    /// Orders an update once the board has said what runs on it; the gateway goes on with it by itself.
    pub async fn order(&mut self, bundle: &str, health: &str) -> Result<()> {
        self.proved().await?;
        let path = self.bundle(bundle);
        let path = path.to_str().context("a path that is not text")?;
        // Scenarios come in any order, so the next version is sometimes an older one.
        let arguments = [
            "--json",
            "update",
            NODE,
            path,
            "--allow-downgrade",
            "--waves",
            "100%",
            "--health",
            health,
            "--detach",
        ];
        let output = self.fleet.headwater(&arguments)?;
        ensure!(output.status.success(), "headwater update: {}", String::from_utf8_lossy(&output.stderr));
        let view: Value = serde_json::from_slice(&output.stdout)?;
        self.order = view["id"].as_str().context("an update without an id")?.to_owned();
        Ok(())
    }

    /// Where the board is with the newest order; empty before it has said a word.
    pub fn standing(&self, node: &Value) -> String {
        let update = &node["update"];
        if update["id"] == *self.order { word(&update["state"]).to_owned() } else { String::new() }
    }

    /// Waits until the newest order's standing is as `wanted`.
    pub async fn update_until(&mut self, what: &str, mut wanted: impl FnMut(&str) -> bool) -> Result<()> {
        let order = self.order.clone();
        let there =
            move |node: &Value| node["update"]["id"] == *order && wanted(word(&node["update"]["state"]));
        self.until(what, UPDATED, there).await.map(|_| ())
    }

    /// Waits until the newest order is sent. The gateway may leave the board out: then it never says a word of it.
    async fn sent(&mut self) -> Result<()> {
        let deadline = Instant::now() + UPDATED;
        loop {
            let update = self.fleet.get(&format!("/api/v1/updates/{}", self.order)).await?;
            let progress = &update["nodes"][0]["progress"];
            match word(progress) {
                "pending" => {}
                "skipped" => bail!("the gateway does not order it: {}", progress["reason"]),
                _ => return Ok(()),
            }
            self.board.alive()?;
            ensure!(Instant::now() < deadline, "not ordered within {UPDATED:?}: {update:#}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits for the end of the newest order; returns its state.
    pub async fn ended(&mut self) -> Result<Value> {
        self.sent().await?;
        let (order, started) = (self.order.clone(), self.started);
        let mut told = String::new();
        let over = move |node: &Value| {
            let update = &node["update"];
            if update["id"] != *order {
                return false;
            }
            let word = word(&update["state"]);
            if told != word {
                println!(
                    "[{:7.1}]   update to {}: {word}",
                    started.elapsed().as_secs_f64(),
                    update["version"]
                );
                told = word.to_owned();
            }
            OVER.contains(&word)
        };
        let node = self.until("through with its update", UPDATED, over).await?;
        self.boot_id = boot_id(&node).unwrap_or_default().to_owned();
        Ok(node["update"]["state"].clone())
    }

    /// Which slot runs, and which version is in it, as the board itself sees it.
    pub fn running(&self) -> Result<(char, String)> {
        let said = self.board.ask("cat /proc/cmdline; . /usr/lib/os-release; echo $IMAGE_VERSION")?;
        let slot =
            said.split("rauc.slot=").nth(1).and_then(|rest| rest.chars().next()).context("no rauc.slot")?;
        Ok((slot, said.lines().next_back().unwrap_or_default().to_owned()))
    }

    /// A short segment, pushed; its answer comes by itself.
    pub fn pushed(&self, number: u32) -> Result<tokio::task::JoinHandle<Result<Answer>>> {
        let input = crate::media::segment(&self.setting.folder, number, "320x180", "10", 1.0)?;
        Ok(self.fleet.push_apart("trial", &format!("{number}.ts"), SMALL, input))
    }

    /// Whether an answer is the whole rendition [`SMALL`].
    pub fn whole(&self, answer: &Answer) -> Result<()> {
        self.renditions(answer, &[(160, 90)])
    }

    /// Whether an answer has renditions of these sizes, each with all frames of a pushed segment.
    pub fn renditions(&self, answer: &Answer, sizes: &[(u64, u64)]) -> Result<()> {
        let parts = answer.parts()?;
        ensure!(parts.len() == sizes.len(), "{} renditions", parts.len());
        for (part, &size) in parts.iter().zip(sizes) {
            let probe = crate::media::probe_bytes(&self.setting.folder, &part.filename, &part.data)?;
            ensure!((probe.width, probe.height) == size && probe.frames == 10, "{probe:?}");
        }
        Ok(())
    }

    /// A short segment, all the way: pushed, transcoded on the board, back.
    pub async fn job(&self, number: u32) -> Result<()> {
        self.whole(&self.pushed(number)?.await??)
    }
}

/// Where an update is, in one word.
pub fn word(state: &Value) -> &str {
    state["kind"].as_str().unwrap_or_default()
}

fn boot_id(node: &Value) -> Option<&str> {
    // Telemetry is the first that a boot says; its birth waits for the probe.
    node["telemetry"]["boot_id"].as_str()
}

/// The secret of a token, which must be nowhere once it is used.
pub fn secret_of(token: &str) -> Result<String> {
    Ok(token.parse::<Token>().map_err(|error| anyhow::anyhow!("{error}"))?.secret)
}

/// Whether a file has these bytes anywhere.
pub fn holds(file: &Path, needle: &str) -> Result<bool> {
    let status = Command::new("grep").args(["-q", "-a", "-F", needle]).arg(file).status()?;
    Ok(status.success())
}
