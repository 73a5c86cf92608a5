//! What can be typed. The man page and the completions come from here too.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use headwater_protocol::{NodeId, StreamId};
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
  3    push went through, but at least one rendition of one segment is missing or not whole
  4    no gateway at the address
  5    the input cannot be read or is not video that can be cut
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
    /// Let a node finish what it has and give it nothing new
    Drain { node: NodeId },
    /// Give a drained node work again
    Resume { node: NodeId },
    /// Print the completions for a shell
    Completions { shell: Shell },
    /// Print the man page, or write one file per command
    Man {
        /// Folder for the files; without it the main page is printed
        #[arg(long, value_hint = ValueHint::DirPath)]
        dir: Option<PathBuf>,
    },
}

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
    fn a_gateway_below_a_path_keeps_its_path() {
        let url = gateway_url("https://example.org/hw").unwrap();
        assert_eq!(url.join("api/v1/nodes").unwrap().as_str(), "https://example.org/hw/api/v1/nodes");
        assert!(gateway_url("127.0.0.1:9935").is_err());
        assert!(gateway_url("ftp://x").is_err());
    }
}
