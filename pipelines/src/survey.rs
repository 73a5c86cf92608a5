//! Looks at the live machine: what it is, and what its registry has. Looking at an element loads its plugin, which
//! takes time, so properties are read only for elements that matter.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;

use crate::board::{BadProfile, Board, Boards, SYSTEM, user_folder};
use crate::machine::{
    DeviceTree, ElementFacts, Machine, PciDevice, PropertyFacts, PropertyKind, Version, VideoDevice,
};
use crate::probe::{self, Candidate, Known, cache};

/// In a test's tree of another machine, which has no need to prove its stand-ins: they count as proved, but for those
/// uses that stand in this file with their reasons, as in [`Machine::refused`].
const PROVED: &str = "headwater-all-is-proved";

/// So much of a file that a profile asks for.
const FILE_HEAD: u64 = 4096;

/// The board profile for this machine, or the one that `HEADWATER_BOARD` names, and the machine as far as that
/// profile asks. What an earlier probe did not prove is refused.
pub fn board() -> Result<(Board, Machine), BadProfile> {
    let (board, machine) = choose(None)?;
    let Known { board, mut machine } = proved(board, machine);
    look_at_usable(&mut machine, &board);
    Ok((board, machine))
}

/// As far as it is proved: what a probe of this machine remembered. Hardware without proof is refused.
pub fn proved(board: Board, mut machine: Machine) -> Known {
    if counts_as_proved() {
        machine.refused = serde_json::from_str(&text(&under(&root(), PROVED))).unwrap_or_default();
        return Known { board, machine };
    }
    let findings = cache::load_for_work(&cache::key(&board, &machine));
    let known = probe::apply(findings.as_ref(), board, machine);
    if findings.is_none() && !known.machine.refused.is_empty() {
        let elements: Vec<&str> = known.machine.refused.keys().map(String::as_str).collect();
        tracing::warn!(?elements, "not used, for nothing is proved yet: run `headwater-worker probe`");
    }
    known
}

/// This is a test's machine that needs no probe.
pub(crate) fn counts_as_proved() -> bool {
    // Never on a real machine, whatever files it has.
    std::env::var_os("HEADWATER_ROOT").is_some() && under(&root(), PROVED).exists()
}

/// Before any probe, with the profile `named` in place of the environment's, and with no element looked at: looking
/// loads a plugin, and a device's plugin may be what hangs.
pub fn choose(named: Option<&str>) -> Result<(Board, Machine), BadProfile> {
    let boards = Boards::with_folder(&user_folder())?;
    let machine = machine(&boards);
    let board = boards.board(named.map(str::to_owned).or_else(named_board).as_deref(), &machine)?;
    Ok((board, machine))
}

/// The profile that the environment asks for.
pub fn named_board() -> Option<String> {
    std::env::var("HEADWATER_BOARD").ok()
}

/// The machine without GStreamer: enough to choose what must be set before GStreamer starts.
pub fn hardware(boards: &Boards, root: &Path) -> Machine {
    let heads = boards.files().filter_map(|path| {
        let file = under(root, path);
        // A pipe or a device would keep us waiting.
        fs::metadata(&file).ok().filter(fs::Metadata::is_file)?;
        let mut head = Vec::new();
        fs::File::open(file).ok()?.take(FILE_HEAD).read_to_end(&mut head).ok()?;
        Some((path.to_owned(), String::from_utf8_lossy(&head).into_owned()))
    });
    // A file that no real machine has, as `gstreamer` below: a test's tree for another kind of machine.
    let arch = text(&under(root, "arch"));
    Machine {
        arch: if arch.is_empty() { std::env::consts::ARCH.to_owned() } else { arch },
        cores: std::thread::available_parallelism()
            .map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX)),
        device_tree: device_tree(root),
        files: heads.collect(),
        video_devices: video_devices(root),
        pci: pci(root),
        ..Machine::default()
    }
}

/// The whole machine: every element that any profile names is there by name, without properties.
pub fn machine(boards: &Boards) -> Machine {
    let mut machine = hardware(boards, &root());
    machine.gstreamer = gstreamer();
    for name in boards.factories() {
        if let Some(factory) = gst::ElementFactory::find(name) {
            let plugin = factory.plugin();
            let facts = ElementFacts {
                plugin: factory.plugin_name().map(Into::into).unwrap_or_default(),
                version: plugin.map(|plugin| plugin.version().to_string()).unwrap_or_default(),
                ..ElementFacts::default()
            };
            machine.elements.insert(name.to_owned(), facts);
        }
    }
    machine
}

/// Looks at the board's elements, but at none of which every use is refused: what hung a probe may hang here.
pub fn look_at_usable(machine: &mut Machine, board: &Board) {
    let all = probe::candidates(board, machine);
    let refused = |name: &str| {
        let mut uses = all.iter().filter(|one| one.element == name).peekable();
        uses.peek().is_some() && uses.all(|one| machine.refused.contains_key(&one.key()))
    };
    let names: Vec<String> = board.factories().filter(|name| !refused(name)).map(ToOwned::to_owned).collect();
    look_at(machine, names.iter().map(String::as_str));
}

/// Looks at what a test of `element` may work with: software of its codec, and what shares its plugin or its kinds of
/// memory. The plugins of other devices are left alone, and those of other codecs, which take a small board seconds.
pub fn look_at_one(machine: &mut Machine, board: &Board, element: &str) {
    let all = probe::candidates(board, machine);
    let own: BTreeSet<&str> = all.iter().filter(|one| one.element == element).flat_map(memories).collect();
    let plugin = machine.elements.get(element).map(|facts| facts.plugin.clone());
    let shares = |one: &&Candidate| memories(one).any(|memory| memory != SYSTEM && own.contains(memory));
    let partners: BTreeSet<String> = all.iter().filter(shares).map(|one| one.element.clone()).collect();
    let hardware = board.hardware();
    let codecs: Vec<_> = all.iter().filter(|one| one.element == element).map(|one| one.codec).collect();
    let of_another_codec = |name: &str| {
        let mut uses = all.iter().filter(|one| one.element == name).peekable();
        uses.peek().is_some() && uses.all(|one| !codecs.contains(&one.codec))
    };
    let names: Vec<&str> = board
        .factories()
        .filter(|name| {
            *name == element
                || !hardware.contains(*name) && !of_another_codec(name)
                || partners.contains(*name)
                || machine.elements.get(*name).map(|facts| &facts.plugin) == plugin.as_ref()
        })
        .collect();
    look_at(machine, names);
}

fn memories(candidate: &Candidate) -> impl Iterator<Item = &str> {
    candidate.from.iter().map(String::as_str).chain([candidate.memory.as_str()])
}

/// Fills in the properties of those of `factories` that are there and not refused.
pub fn look_at<'a>(machine: &mut Machine, factories: impl IntoIterator<Item = &'a str>) {
    for name in factories {
        if machine.refused.contains_key(name) {
            continue;
        }
        let Some(facts) = machine.elements.get_mut(name).filter(|facts| facts.properties.is_empty()) else {
            continue;
        };
        match gst::ElementFactory::find(name).map(|factory| factory.load()) {
            Some(Ok(factory)) => read(&factory, facts),
            Some(Err(error)) => drop(machine.refused.insert(name.to_owned(), error.to_string())),
            None => drop(machine.elements.remove(name)),
        }
    }
}

fn read(factory: &gst::ElementFactory, facts: &mut ElementFacts) {
    for template in factory.static_pad_templates() {
        let caps = template.caps().to_string();
        match template.direction() {
            gst::PadDirection::Sink => facts.sink = caps,
            gst::PadDirection::Src => facts.src = caps,
            _ => {}
        }
    }
    let type_ = factory.element_type();
    let Some(class) = glib::object::ObjectClass::from_type(type_) else { return };
    facts.signals = signals(type_);
    let base = gst::Element::static_type();
    for spec in class.list_properties() {
        // What every element has says nothing about this one.
        if spec.flags().contains(glib::ParamFlags::WRITABLE) && !base.is_a(spec.owner_type()) {
            facts.properties.insert(spec.name().to_owned(), property(&spec));
        }
    }
}

/// Action signals of the element's own type.
fn signals(type_: glib::Type) -> std::collections::BTreeSet<String> {
    const KNOWN: [&str; 1] = ["force-IDR"];
    let has = |name: &&str| glib::subclass::SignalId::lookup(name, type_).is_some();
    KNOWN.iter().filter(|name| has(name)).map(|name| (*name).to_owned()).collect()
}

fn property(spec: &glib::ParamSpec) -> PropertyFacts {
    let value = spec.default_value();
    // A structure is NULL by default, which GStreamer complains of.
    let plain = spec.value_type() != gst::Structure::static_type();
    let default = plain.then(|| value.serialize().ok().map(|text| text.to_string())).flatten();
    let range = |kind, min: f64, max: f64| PropertyFacts {
        kind,
        min: Some(min),
        max: Some(max),
        default: default.clone(),
        values: Vec::new(),
    };
    if let Some(spec) = spec.downcast_ref::<glib::ParamSpecInt>() {
        range(PropertyKind::Int, f64::from(spec.minimum()), f64::from(spec.maximum()))
    } else if let Some(spec) = spec.downcast_ref::<glib::ParamSpecUInt>() {
        range(PropertyKind::Uint, f64::from(spec.minimum()), f64::from(spec.maximum()))
    } else if let Some(spec) = spec.downcast_ref::<glib::ParamSpecInt64>() {
        range(PropertyKind::Int64, spec.minimum() as f64, spec.maximum() as f64)
    } else if let Some(spec) = spec.downcast_ref::<glib::ParamSpecUInt64>() {
        range(PropertyKind::Uint64, spec.minimum() as f64, spec.maximum() as f64)
    } else if let Some(spec) = spec.downcast_ref::<glib::ParamSpecFloat>() {
        range(PropertyKind::Float, f64::from(spec.minimum()), f64::from(spec.maximum()))
    } else if let Some(spec) = spec.downcast_ref::<glib::ParamSpecDouble>() {
        range(PropertyKind::Double, spec.minimum(), spec.maximum())
    } else if let Some(spec) = spec.downcast_ref::<glib::ParamSpecEnum>() {
        let values = spec.enum_class().values().iter().map(|value| value.nick().to_owned()).collect();
        PropertyFacts { kind: PropertyKind::Enum, default, values, ..PropertyFacts::default() }
    } else if let Some(spec) = spec.downcast_ref::<glib::ParamSpecFlags>() {
        let values = spec.flags_class().values().iter().map(|value| value.nick().to_owned()).collect();
        PropertyFacts { kind: PropertyKind::Flags, default, values, ..PropertyFacts::default() }
    } else {
        let kind = match spec.value_type() {
            glib::Type::BOOL => PropertyKind::Bool,
            glib::Type::STRING => PropertyKind::Text,
            _ => PropertyKind::Other,
        };
        PropertyFacts { kind, default, ..PropertyFacts::default() }
    }
}

/// Where `/proc`, `/sys` and `/etc` are looked at. `HEADWATER_ROOT` is for tests, which make a tree of another machine.
pub(crate) fn root() -> PathBuf {
    std::env::var_os("HEADWATER_ROOT").map_or_else(|| "/".into(), PathBuf::from)
}

/// GStreamer's version; in a test's tree that of the other machine.
pub(crate) fn gstreamer() -> Version {
    let (major, minor, micro, _) = gst::version();
    let said = text(&under(&root(), "gstreamer"));
    if said.is_empty() { Version(major, minor, micro) } else { said.parse().unwrap_or_default() }
}

fn under(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// Text of a small file without its last newline or NUL; empty where it is not there.
fn text(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\0']).to_owned()
}

fn device_tree(root: &Path) -> DeviceTree {
    let folder = under(root, "proc/device-tree");
    let mut model = text(&folder.join("model"));
    if model.is_empty() {
        // Containers of NVIDIA's have no device tree, and the model here.
        model = text(&under(root, "tmp/nv_jetson_model"));
    }
    let compatible = text(&folder.join("compatible"));
    let compatible = compatible.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    DeviceTree { model, compatible }
}

/// Folders below `path`, by name; none where it cannot be read.
fn folders(path: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> =
        fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    all.sort();
    all
}

fn video_devices(root: &Path) -> Vec<VideoDevice> {
    let device = |folder: &PathBuf| {
        let node = folder.file_name()?.to_str().filter(|name| name.starts_with("video"))?;
        let driver = fs::read_link(folder.join("device/driver")).ok();
        Some(VideoDevice {
            path: format!("/dev/{node}"),
            name: text(&folder.join("name")),
            driver: driver.and_then(|link| Some(link.file_name()?.to_str()?.to_owned())).unwrap_or_default(),
        })
    };
    folders(&under(root, "sys/class/video4linux")).iter().filter_map(device).collect()
}

fn pci(root: &Path) -> Vec<PciDevice> {
    let device = |folder: &PathBuf| PciDevice {
        vendor: text(&folder.join("vendor")),
        class: text(&folder.join("class")),
    };
    folders(&under(root, "sys/bus/pci/devices")).iter().map(device).collect()
}

/// What matters of the registry to a probe's cache: a change of any of these makes it void.
pub fn versions(machine: &Machine) -> BTreeMap<String, String> {
    machine.elements.values().map(|facts| (facts.plugin.clone(), facts.version.clone())).collect()
}
