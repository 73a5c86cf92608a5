//! What can be typed. The man page and the completions come from here too.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use headwater_gateway::rollout::Share;
use headwater_protocol::update::Window;
use headwater_protocol::{NodeId, StreamId, UpdateId};
use url::Url;

use crate::human;

/// Runs a fleet of transcoding boards: enrol nodes, push video, see what happens.
#[derive(Debug, Parser)]
#[command(name = "headwater", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit status:
  0    done; for push: every rendition of every segment arrived whole
  1    it failed; the reason is on standard error
  2    wrong arguments, or a ladder that breaks a rule
  3    push went through, but at least one rendition of one segment is missing or not whole;
       or not every node did what was asked: an update, a command, a configuration
  4    no gateway at the address
  5    the input cannot be read, or is not video that can be cut or no bundle
  130  interrupted";

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Address of the gateway
    #[arg(long, global = true, env = "HEADWATER_GATEWAY", default_value = "http://127.0.0.1:9935")]
    #[arg(value_name = "URL", value_parser = gateway_url, value_hint = ValueHint::Url)]
    pub(crate) gateway: Url,
    /// File with the operator's token; the gateway writes it on its first start
    #[arg(long, global = true, env = "HEADWATER_TOKEN_FILE", value_name = "FILE")]
    #[arg(default_value = "/var/lib/headwater-gateway/operator.token", value_hint = ValueHint::FilePath)]
    pub(crate) token_file: PathBuf,
    /// Print JSON for programs instead of text for people
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub(crate) color: Color,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Push a video through the fleet and collect its renditions
    #[command(after_help = PUSH_HELP)]
    Push(Push),
    /// Show the nodes: what they are, can do and are doing
    Nodes(Watch),
    /// Show the streams, or one stream with all its segments
    Streams(Streams),
    /// Show what failed attempts at a segment left behind: faults, logs, the pipeline's graph
    Evidence(Evidence),
    /// Print a token with which a node enrols, once
    Enroll(Enroll),
    /// Change what nodes run: an image or packages, in waves, until the first failure
    #[command(after_help = UPDATE_HELP)]
    Update(Update),
    /// Show the updates, or one with all its nodes; pause, resume or cancel one
    Updates(Updates),
    /// Make a signed bundle of Debian packages for `headwater update`, or show what one is
    Bundle(Bundle),
    /// Let nodes finish what they have and give them nothing new until `resume`, also over restarts and boots
    #[command(after_help = SELECTOR_HELP)]
    Drain(Nodes),
    /// Give drained nodes work again
    #[command(after_help = SELECTOR_HELP)]
    Resume(Nodes),
    /// Start the agent of nodes anew when they have drained
    #[command(after_help = SELECTOR_HELP)]
    Restart(Nodes),
    /// Boot nodes anew when they have drained
    #[command(after_help = SELECTOR_HELP)]
    Reboot(Nodes),
    /// Let nodes probe their boards again, and wait until they have
    #[command(after_help = SELECTOR_HELP)]
    Probe(Nodes),
    /// Fetch the end of a node's log
    Logs(Logs),
    /// Show or change what is wanted of nodes' configurations, and what they say of it
    #[command(subcommand, after_help = SELECTOR_HELP)]
    Config(Config),
    /// Print the completions for a shell
    Completions { shell: Shell },
    /// Print the man page, or write one file per command
    Man {
        /// Folder for the files; without it the main page is printed
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        dir: Option<PathBuf>,
    },
}

macro_rules! selectors {
    () => {
        "\
Selectors:
  all, orin-1, orin-*       all nodes, one, those whose name fits
  board=PROFILE, arch=aarch64, state=online, version=0.1.*
                            what they are; != is not
  version<0.2.0             also <= > >=; of the image or package, else of the agent
  a,b   a+b                 either; both: 'orin-*+version<0.2.0'
Quote what your shell would take for itself."
    };
}

const SELECTOR_HELP: &str = selectors!();

const UPDATE_HELP: &str = concat!(
    selectors!(),
    "\n
Each wave is ordered when the one before it is through and has soaked. A node that is away does \
not hold up the others; it gets its order when it comes back. Nodes that failed, or went back to what \
they ran before, count as failures, and so do nodes that began and were not heard of again. At the \
limit the update stops: look at it with `headwater updates`, then resume or cancel it. Bundles are \
RAUC's (format=verity), or packages by `headwater bundle`; each board checks the signature.

Exit status: 0 if every node that could take it has it, 3 if not; see headwater --help."
);

const PUSH_HELP: &str = "\
Ladders:
  standard                  720p 3 Mb/s, 480p 1.6, 360p 0.8, 240p 0.25
  720p,480p                 sizes by name: 2160p 1440p 1080p 720p 576p 480p 360p 240p 144p
  P720p30fps16x9,…          Livepeer's presets
  ladder.json, ladder.toml  a list of renditions, or of Livepeer profiles
  name=hd,size=1280x720,bitrate=3M,fps=30,gop=2s
                            written out; several with ';' or by repeating --ladder.
                            Also codec=h264|hevc|av1, quality=1-51 instead of bitrate,
                            profile=baseline|main|high|constrained-high, container=ts|mp4, gop=intra
  All are made, also those larger than the input.

Exit status: 0 if every rendition of every segment arrived whole, 3 if not; see headwater --help.";

#[derive(Debug, Args)]
pub(crate) struct Push {
    /// File, http(s) URL, or - for standard input
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) input: String,
    /// Wanted renditions: names, a file, or written out; see below
    #[arg(long, value_name = "SPEC", default_value = "standard")]
    pub(crate) ladder: Vec<String>,
    /// Name of the stream [default: the input's name and the time]
    #[arg(long, value_name = "NAME")]
    pub(crate) stream: Option<StreamId>,
    /// Shortest segment; cuts are made at the next keyframe
    #[arg(long, value_name = "SPAN", default_value = "2s", value_parser = human::parse_span)]
    pub(crate) segment: Duration,
    /// Segments that may be under way at once
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=32))]
    pub(crate) in_flight: u8,
    /// Folder for playable HLS of what comes back
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) out: Option<PathBuf>,
    /// How long one segment may take, retries included
    #[arg(long, value_name = "SPAN", default_value = "2m", value_parser = human::parse_span)]
    pub(crate) deadline: Duration,
    /// Largest download from a URL or standard input
    #[arg(long, value_name = "SIZE", default_value = "16G", value_parser = human::parse_bytes)]
    pub(crate) max_size: u64,
    /// The worker binary that cuts the input [default: headwater-worker beside this command, then in PATH]
    #[arg(long, value_name = "FILE", env = "HEADWATER_WORKER", value_hint = ValueHint::ExecutablePath)]
    pub(crate) worker: Option<PathBuf>,
    /// No progress
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Show again and again until interrupted
    #[arg(long)]
    pub(crate) watch: bool,
    /// Time between two looks
    #[arg(long, value_name = "SPAN", default_value = "2s", value_parser = human::parse_span)]
    pub(crate) every: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Streams {
    /// Only this stream, with all its segments
    pub(crate) stream: Option<StreamId>,
    #[command(flatten)]
    pub(crate) watch: Watch,
}

#[derive(Debug, Args)]
pub(crate) struct Evidence {
    pub(crate) stream: StreamId,
    /// Number of the segment in its stream
    pub(crate) segment: u64,
    /// Folder for the graphs, one file per attempt and chain, to be drawn with `dot -Tsvg`
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) graphs: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Enroll {
    /// Name of the node: a-z 0-9 _ -
    #[arg(value_name = "NAME")]
    pub(crate) node: NodeId,
    /// How long the token works
    #[arg(long, value_name = "SPAN", default_value = "24h", value_parser = human::parse_span)]
    pub(crate) valid: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Nodes {
    /// Which nodes; see below
    pub(crate) selector: String,
}

#[derive(Debug, Args)]
pub(crate) struct Update {
    /// Which nodes; see below
    pub(crate) selector: String,
    /// A .raucb or .hwb file
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) bundle: PathBuf,
    /// How many of all nodes have had their turn after each wave: percent or counts
    #[arg(long, value_name = "SHARES", value_delimiter = ',', default_value = "5%,25%,100%")]
    pub(crate) waves: Vec<Share>,
    /// From the end of a wave's last node until the next wave; one for all, or one for each wave but the last
    #[arg(long, value_name = "SPANS", value_delimiter = ',', default_value = "30m", value_parser = human::parse_span)]
    pub(crate) soak: Vec<Duration>,
    /// So many failures stop it: a count, or percent of its nodes
    #[arg(long, value_name = "SHARE", default_value = "1")]
    pub(crate) stop_after: Share,
    /// When nodes may install, each day, UTC; they fetch at once [default: at any time]
    #[arg(long, value_name = "HH:MM-HH:MM", value_parser = human::parse_window)]
    pub(crate) window: Option<Window>,
    /// Time for a node to prove itself with the new version; then it goes back
    #[arg(long, value_name = "SPAN", default_value = "10m", value_parser = human::parse_span)]
    pub(crate) health: Duration,
    /// Let nodes get an older version than they run, which can bring back holes that were closed
    #[arg(long)]
    pub(crate) allow_downgrade: bool,
    /// A name for people
    #[arg(long, value_name = "TEXT")]
    pub(crate) name: Option<String>,
    /// Show how it goes until it ends; Ctrl-C leaves it running [default: on a terminal]
    #[arg(long, conflicts_with = "detach")]
    pub(crate) follow: bool,
    /// Start it and return
    #[arg(long)]
    pub(crate) detach: bool,
    /// Only show the waves and who is skipped why; the bundle is uploaded, nothing is ordered
    #[arg(long, conflicts_with_all = ["follow", "detach"])]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Updates {
    #[command(subcommand)]
    pub(crate) steer: Option<Steer>,
    /// Only this update, with all its nodes
    pub(crate) id: Option<UpdateId>,
    #[command(flatten)]
    pub(crate) watch: Watch,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Steer {
    /// Order nothing new; nodes that have their order go on
    Pause { id: UpdateId },
    /// Go on with a paused update, or with a stopped one after a look at its failures
    Resume { id: UpdateId },
    /// End it: nodes that have not begun to install give it up
    Cancel { id: UpdateId },
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Bundle {
    #[command(subcommand)]
    pub(crate) show: Option<ShowBundle>,
    /// Packages of one architecture
    #[arg(required = true, value_name = "DEB", value_hint = ValueHint::FilePath)]
    pub(crate) debs: Vec<PathBuf>,
    /// Private key of the signer, PEM
    #[arg(long, required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) key: Option<PathBuf>,
    /// Certificate of the signer, PEM; those between it and what the boards trust may follow it
    #[arg(long, required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) cert: Option<PathBuf>,
    /// The bundle
    #[arg(long, short, required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ShowBundle {
    /// Print what a bundle says of itself; who signed it is its claim, the boards check it
    Show {
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    pub(crate) node: NodeId,
    /// File for the log [default: standard output]
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
    /// How much of its end
    #[arg(long, value_name = "SIZE", default_value = "256k", value_parser = human::parse_bytes)]
    pub(crate) bytes: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Show what is wanted and what the nodes say of it
    Get {
        /// Which nodes
        selector: String,
    },
    /// Lay keys over the nodes' own files, checked there before they hold
    Set {
        /// Which nodes
        selector: String,
        /// Keys of agent.toml with their sections: limits.workers=2, proxy=http://host:3128
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = crate::config::parse_setting)]
        settings: Vec<(String, serde_json::Value)>,
        #[command(flatten)]
        wait: Wait,
    },
    /// Want nothing of keys any more: the nodes' own files count
    Unset {
        /// Which nodes
        selector: String,
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<String>,
        #[command(flatten)]
        wait: Wait,
    },
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Wait {
    /// How long to wait for what the nodes say of it
    #[arg(long, value_name = "SPAN", default_value = "3m", value_parser = human::parse_span)]
    pub(crate) wait: Duration,
}

fn gateway_url(text: &str) -> Result<Url, String> {
    let mut url =
        Url::parse(text).map_err(|error| format!("{error}; write it like http://127.0.0.1:9935"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("write it like http://127.0.0.1:9935".to_owned());
    }
    // `join` replaces what follows the last slash.
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_manual_goes_into_a_folder_as_that_of_the_other_programs_does() {
        let folder = |args: &[&str]| match Cli::try_parse_from(args).unwrap().command {
            Command::Man { dir } => dir,
            _ => None,
        };
        assert_eq!(folder(&["headwater", "man", "pages"]), Some(PathBuf::from("pages")));
        assert_eq!(folder(&["headwater", "man"]), None);
    }

    #[test]
    fn a_gateway_below_a_path_keeps_its_path() {
        let url = gateway_url("https://example.org/hw").unwrap();
        assert_eq!(url.join("api/v1/nodes").unwrap().as_str(), "https://example.org/hw/api/v1/nodes");
        assert!(gateway_url("127.0.0.1:9935").is_err());
        assert!(gateway_url("ftp://x").is_err());
    }
}
