//! `headwater-worker doctor` and `boards`: a page for a person, a file to share, exit codes for scripts.

use std::path::Path;

use headwater_pipelines::board::Boards;
use headwater_pipelines::doctor::Report;
use regex::Regex;

mod desk;
use desk::Desk;

fn doctor<'a>(more: &[&'a str]) -> Vec<&'a str> {
    ["doctor"].iter().chain(more).copied().collect()
}

/// A board whose encoder is not installed.
const LACKING: &str = r#"
[[encoder]]
codec = "h264"
factory = ["toyh264enc"]
package = "toy-codecs"
in = { formats = ["NV12"] }
"#;

/// What differs from one machine and run to the next, in one form.
fn masked(page: &str) -> String {
    let fact =
        Regex::new(r"(?m)^(machine|chip|worker|kernel|l4t|nvidia|mpp_service|rknpu|i915|xe) .*\n").unwrap();
    let size = Regex::new(r"(?m)^ +\S+, \d+ cores, .*\n").unwrap();
    let speed = Regex::new(r" +\d+( +(?:\d+|-)) proved").unwrap();
    let page = speed.replace_all(page, " N${1} proved");
    size.replace_all(&fact.replace_all(&page, ""), "").into_owned()
}

#[test]
fn the_page_says_what_is_used_what_is_missing_and_what_to_do() {
    let desk = Desk::with_toy(LACKING);
    let page = desk.text(&doctor(&[]), 6);
    assert!(page.starts_with("machine    "), "{page}");
    assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
    assert!(!page.contains('\x1b'), "colours where nobody sees them");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/doctor.txt");
    if std::env::var_os("HEADWATER_GOLDEN").is_some() {
        std::fs::create_dir_all(golden.parent().unwrap()).unwrap();
        std::fs::write(&golden, masked(&page)).unwrap();
    }
    let golden = std::fs::read_to_string(golden).unwrap();
    assert_eq!(masked(&page), masked_profiles(&golden, &page));
}

/// Shipped profiles come and go; the lines on those not in use are the page's own.
fn masked_profiles(golden: &str, page: &str) -> String {
    let unused = |text: &str| -> Vec<String> {
        let from = text.lines().skip_while(|line| !line.starts_with("not used"));
        from.take_while(|line| !line.is_empty()).map(str::to_owned).collect()
    };
    let (old, new) = (unused(golden).join("\n"), unused(page).join("\n"));
    golden.replace(&old, &new)
}

#[test]
fn the_exit_code_says_whether_it_works() {
    assert!(Desk::new().text(&doctor(&[]), 0).contains("It works, in software"));
    let nothing = Desk::new();
    nothing.profile("software", &desk::SMALL.replace("x264enc", "toyh264enc"));
    let page = nothing.text(&doctor(&[]), 1);
    assert!(
        page.contains("toyh264enc is not installed; package gstreamer1.0-plugins-ugly brings it"),
        "{page}"
    );
    assert!(page.contains("It does not work"), "{page}");
    let output = Desk::new().run(&doctor(&["--board", "no-such-board"]));
    assert_eq!(output.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-board"));
}

#[test]
fn a_board_can_be_asked_for() {
    let desk = Desk::with_toy(LACKING);
    let found = desk.json(&doctor(&["--json", "--board", "software"]), 0);
    assert_eq!(found["chosen"]["id"], "software");
    assert_eq!(found["chosen"]["asked_for"], true);
    assert_eq!(found["verdict"], "works");
    assert_eq!(found["plan"]["outputs"]["rungs"].as_array().unwrap().len(), 4);
    assert!(!desk.cache().exists(), "it is not the board that workers use");
}

#[test]
fn the_report_can_be_shared_and_plans_can_be_made_from_it() {
    let desk = Desk::with_toy(LACKING);
    let secret = desk.path("about");
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let about = format!("unit of alice on {host}, 02:42:ac:11:00:02\nSerial : 00000000abcdef\n");
    std::fs::write(&secret, about).unwrap();
    let rule = format!("[match]\nfile = [{{ path = '{}' }}]\n", secret.display());
    desk.profile("toy", &format!("{}{rule}{LACKING}", desk::TOY));
    let path = desk.path("report.json");
    let arguments = doctor(&["--report", path.to_str().unwrap()]);
    let mut command = desk.command(&arguments);
    command.env("USER", "alice").env("HOME", desk.path("."));
    assert_eq!(command.output().unwrap().status.code(), Some(6));
    let text = std::fs::read_to_string(&path).unwrap();
    let id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    for secret in
        ["alice", "02:42:ac:11:00:02", "00000000abcdef", desk.path(".").to_str().unwrap(), id.trim()]
    {
        assert!(secret.is_empty() || !text.contains(secret), "{secret} is in the report");
    }
    let report: Report = serde_json::from_str(&text).unwrap();
    let about = report.machine.files.values().find(|text| text.contains("unit of"));
    let about = about.expect("the file that the profile asks for");
    // This very name says nothing, and is left.
    let named = if host == "localhost" { "localhost" } else { "<host>" };
    assert!(about.contains(&format!("unit of <user> on {named}, <mac>")), "{about}");
    let x264 = &report.machine.elements["x264enc"];
    assert!(x264.properties.contains_key("key-int-max"), "{x264:?}");
    let boards = Boards::shipped().unwrap();
    assert_eq!(boards.board(None, &report.machine).unwrap().id, "software");
}

#[test]
fn boards_are_listed_and_shown_whole() {
    let desk = Desk::with_toy(LACKING);
    desk.profile("mine", "schema = 1\nid = 'mine'\nextends = 'toy'\n[match]\narch = ['vax']\n");
    let list = desk.text(&["boards"], 0);
    assert!(list.contains("* toy ") && list.contains("in use"), "{list}");
    assert!(list.contains("the machine is "), "{list}");
    let listed = desk.json(&["boards", "--json"], 0);
    let mine = listed.as_array().unwrap().iter().find(|one| one["id"] == "mine").unwrap();
    assert!(mine["file"].as_str().unwrap().ends_with("mine.toml"));
    let shown: toml::Table = desk.text(&["boards", "show", "mine"], 0).parse().unwrap();
    assert_eq!(shown["title"].as_str(), Some("A toy board"));
    assert_eq!(shown["encoder"][0]["factory"][0].as_str(), Some("toyh264enc"));
    let output = desk.run(&["boards", "show", "theirs"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no such profile"));
}

#[test]
fn the_shell_and_the_manual_know_every_command() {
    let desk = Desk::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(desk.text(&["completions", shell], 0).contains("doctor"), "{shell}");
    }
    let folder = desk.path("man");
    desk.text(&["man", folder.to_str().unwrap()], 0);
    assert!(folder.join("headwater-worker-doctor.1").exists());
    assert!(desk.text(&["man"], 0).contains(".TH headwater-worker 1"));
}
