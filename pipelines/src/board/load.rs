//! Reads profiles: the shipped ones, and the user's own, which override or extend them.
//!
//! A profile that `extends` another is laid over it: tables key by key; decoders, scalers and encoders of the same
//! codec and first factory are merged, `remove = true` takes one away, others are added *before* the base's;
//! notes are added; any other list replaces the base's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use super::{Board, Mismatch};
use crate::machine::Machine;

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("board profile {profile}: {reason}")]
pub struct BadProfile {
    /// Its id or file.
    pub profile: String,
    pub reason: Reason,
}

#[derive(Debug, thiserror::Error)]
pub enum Reason {
    #[error("it cannot be read: {0}")]
    File(std::io::Error),
    #[error("it is no TOML: {0}")]
    Toml(toml::de::Error),
    #[error("it has no id")]
    NoId,
    #[error("there is no such profile; `headwater-worker boards` lists them")]
    Missing,
    #[error("it extends {0}, which is not there")]
    NoBase(String),
    #[error("it extends itself by way of {0}")]
    Circle(String),
    #[error("schema {0}; this version reads 1")]
    Schema(u32),
    #[error("{0}")]
    Expression(regex::Error),
    #[error("memory {0:?} is named, but not described under [memory]")]
    NoMemory(String),
}

/// All profiles at hand, each whole.
#[derive(Debug, Clone, Default)]
pub struct Boards {
    profiles: BTreeMap<String, Profile>,
}

#[derive(Debug, Clone)]
pub struct Profile {
    pub board: Board,
    /// The profile with everything that it extends laid under it.
    pub merged: Table,
    /// None for a shipped one.
    pub file: Option<PathBuf>,
}

macro_rules! shipped {
    ($($file:literal),+ $(,)?) => {
        /// The profiles in `boards/`, by file name; a test compares with the folder.
        const SHIPPED: &[(&str, &str)] = &[$(($file, include_str!(concat!("../../boards/", $file, ".toml")))),+];
    };
}

shipped![
    "amlogic",
    "imx8mp",
    "imx95",
    "intel-va",
    "jetson-common",
    "jetson-orin-jp5",
    "jetson-orin-jp6",
    "jetson-orin-jp7",
    "jetson-orin-nano",
    "jetson-thor",
    "jetson-xavier",
    "mediatek-genio",
    "nvidia-dgpu",
    "nvidia-dgpu-1-26",
    "qcs6490",
    "raspberry-pi-4",
    "raspberry-pi-5",
    "rk3568-mainline",
    "rk3568-mpp",
    "rk3588-mpp",
    "rockchip-common",
    "rockchip-mainline",
    "software",
    "ti-am62a",
    "ti-am68a",
    "v4l2-m2m",
    "vulkan-video",
];

/// The profile whose elements are every board's last resort.
const SOFTWARE: &str = "software";

/// Where a user's own profiles are: `$HEADWATER_BOARDS`, else `/etc/headwater/boards`.
pub fn user_folder() -> PathBuf {
    std::env::var_os("HEADWATER_BOARDS").map_or_else(|| "/etc/headwater/boards".into(), PathBuf::from)
}

impl Boards {
    /// The shipped profiles alone.
    pub fn shipped() -> Result<Self, BadProfile> {
        Self::whole(SHIPPED.iter().map(|&(name, text)| (name.to_owned(), text.to_owned(), None)).collect())
    }

    /// The shipped profiles, and those in `folder` over them: one with a shipped id takes that one's place, and may
    /// extend it by the same name. A folder that is not there has none.
    pub fn with_folder(folder: &Path) -> Result<Self, BadProfile> {
        let failed = |path: &Path, error| BadProfile {
            profile: path.display().to_string(),
            reason: Reason::File(error),
        };
        let mut texts: Vec<(String, String, Option<PathBuf>)> =
            SHIPPED.iter().map(|&(name, text)| (name.to_owned(), text.to_owned(), None)).collect();
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Self::whole(texts),
            Err(error) => return Err(failed(folder, error)),
        };
        let mut paths = entries
            .map(|entry| entry.map(|entry| entry.path()).map_err(|error| failed(folder, error)))
            .collect::<Result<Vec<_>, _>>()?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        paths.sort();
        for path in paths {
            let text = std::fs::read_to_string(&path).map_err(|error| failed(&path, error))?;
            texts.push((path.display().to_string(), text, Some(path)));
        }
        Self::whole(texts)
    }

    fn whole(texts: Vec<(String, String, Option<PathBuf>)>) -> Result<Self, BadProfile> {
        // Later ones stand over earlier ones of the same id, which they may extend.
        let mut layers: BTreeMap<String, Vec<(Table, Option<PathBuf>)>> = BTreeMap::new();
        for (name, text, file) in texts {
            let bad = |reason| BadProfile { profile: name.clone(), reason };
            let table: Table = text.parse().map_err(|error| bad(Reason::Toml(error)))?;
            let id = table.get("id").and_then(Value::as_str).ok_or_else(|| bad(Reason::NoId))?.to_owned();
            layers.entry(id).or_default().push((table, file));
        }
        let mut profiles = BTreeMap::new();
        for (id, layered) in &layers {
            let table = resolve(&layers, id, layered.len(), &mut Vec::new())?;
            let file = layered.last().and_then(|(_, file)| file.clone());
            let board = read(table.clone()).map_err(|reason| BadProfile {
                profile: file.as_ref().map_or_else(|| id.clone(), |file| file.display().to_string()),
                reason,
            })?;
            profiles.insert(id.clone(), Profile { board, merged: table, file });
        }
        Ok(Self { profiles })
    }

    pub fn get(&self, id: &str) -> Option<&Board> {
        self.profiles.get(id).map(|profile| &profile.board)
    }

    pub fn profile(&self, id: &str) -> Option<&Profile> {
        self.profiles.get(id)
    }

    pub fn all(&self) -> impl Iterator<Item = &Profile> {
        self.profiles.values()
    }

    /// The profile for a machine: the best of those that match.
    pub fn choose(&self, machine: &Machine) -> Option<&Board> {
        self.best(|board| board.check(machine).is_ok())
    }

    /// Of the profiles that `fit` the one of the highest priority, then of the first id.
    pub(crate) fn best(&self, fit: impl Fn(&Board) -> bool) -> Option<&Board> {
        let fitting = self.all().map(|profile| &profile.board).filter(|board| fit(board));
        fitting.max_by(|a, b| a.priority.cmp(&b.priority).then_with(|| b.id.cmp(&a.id)))
    }

    /// The profile `id`, or the one for the machine, with what software can do behind it.
    pub fn board(&self, id: Option<&str>, machine: &Machine) -> Result<Board, BadProfile> {
        let missing = |id: &str| BadProfile { profile: id.to_owned(), reason: Reason::Missing };
        let software = self.get(SOFTWARE).ok_or_else(|| missing(SOFTWARE))?;
        let board = match id {
            Some(id) => self.get(id).ok_or_else(|| missing(id))?,
            None => self.choose(machine).unwrap_or(software),
        };
        Ok(board.clone().with_last_resort(software))
    }

    /// Each profile and why it is not for the machine, if so.
    pub fn verdicts(&self, machine: &Machine) -> Vec<(&Board, Result<(), Mismatch>)> {
        self.all().map(|profile| (&profile.board, profile.board.check(machine))).collect()
    }

    /// Every factory that any profile names: what is worth knowing of a registry.
    pub fn factories(&self) -> impl Iterator<Item = &str> {
        self.all().flat_map(|profile| profile.board.factories())
    }

    /// Every file that any profile asks for.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.all().flat_map(|profile| &profile.board.rules.file).map(|rule| rule.path.as_str())
    }
}

impl Board {
    /// Every factory that this profile names.
    pub fn factories(&self) -> impl Iterator<Item = &str> {
        let decoders = self.decoders.iter().flat_map(|one| &one.factory);
        let scalers = self.scalers.iter().flat_map(|one| &one.factory);
        let encoders = self.encoders.iter().flat_map(|one| &one.factory);
        let parsers = self.decoders.iter().filter_map(|one| one.parser.as_ref()).map(|one| &one.factory);
        let after = self.encoders.iter().flat_map(|one| &one.after).map(|one| &one.factory);
        let carriers = self.memory.values().flat_map(|one| one.from_system.iter().chain(&one.to_system));
        let named = decoders.chain(scalers).chain(encoders).chain(parsers).chain(after).chain(carriers);
        named.chain(&self.rules.element).map(String::as_str)
    }
}

type Layers = BTreeMap<String, Vec<(Table, Option<PathBuf>)>>;

/// The profile `id` as its first `depth` layers make it, laid over what they extend.
fn resolve(
    layers: &Layers,
    id: &str,
    depth: usize,
    above: &mut Vec<(String, usize)>,
) -> Result<Table, BadProfile> {
    let bad = |reason| BadProfile { profile: id.to_owned(), reason };
    let (table, _) = layers
        .get(id)
        .and_then(|layered| layered.get(depth.checked_sub(1)?))
        .ok_or_else(|| bad(Reason::NoBase(id.to_owned())))?;
    let mut own = table.clone();
    let Some(base) = own.remove("extends") else { return Ok(own) };
    let base = base.as_str().unwrap_or_default().to_owned();
    let below = if base == id { depth - 1 } else { layers.get(&base).map_or(0, Vec::len) };
    if below == 0 {
        return Err(bad(Reason::NoBase(base)));
    }
    if above.contains(&(base.clone(), below)) {
        return Err(bad(Reason::Circle(base)));
    }
    above.push((id.to_owned(), depth));
    let mut whole = resolve(layers, &base, below, above)?;
    above.pop();
    // Being a base, and how much it weighs, are not passed on.
    for key in ["abstract", "priority"] {
        whole.remove(key);
    }
    lay_over(&mut whole, own);
    Ok(whole)
}

/// What an entry in a list of elements is found by.
fn key(entry: &Value) -> Option<(Option<&str>, &str)> {
    let factory = entry.get("factory")?.as_array()?.first()?.as_str()?;
    Some((entry.get("codec").and_then(Value::as_str), factory))
}

/// The memory that an entry names.
fn memory(entry: &Value) -> Option<&str> {
    ["in", "out"].iter().find_map(|side| entry.get(side)?.get("memory")?.as_str())
}

/// Whether `own` is about `other`: about all with its codec and first factory, or those in the memory that it names.
fn is_about(own: &Value, other: &Value) -> bool {
    key(own) == key(other) && memory(own).is_none_or(|named| named == memory(other).unwrap_or(super::SYSTEM))
}

fn lay_over(base: &mut Table, own: Table) {
    for (name, value) in own {
        match (base.get_mut(&name), value) {
            (Some(Value::Table(under)), Value::Table(over)) => lay_over(under, over),
            (Some(Value::Array(under)), Value::Array(over)) if name == "notes" => under.extend(over),
            (Some(Value::Array(under)), Value::Array(over))
                if !over.is_empty() && over.iter().all(|entry| key(entry).is_some()) =>
            {
                lay_list(under, over);
            }
            (_, value) => drop(base.insert(name, value)),
        }
    }
}

fn lay_list(under: &mut Vec<Value>, over: Vec<Value>) {
    let mut new = Vec::new();
    for own in over {
        if own.get("remove").and_then(Value::as_bool) == Some(true) {
            under.retain(|other| !is_about(&own, other));
            continue;
        }
        let mut is_new = true;
        for other in under.iter_mut().filter(|other| is_about(&own, other)) {
            is_new = false;
            if let (Value::Table(table), Value::Table(own)) = (other, &own) {
                lay_over(table, own.clone());
            }
        }
        if is_new {
            new.push(own);
        }
    }
    under.splice(0..0, new);
}

fn read(table: Table) -> Result<Board, Reason> {
    let mut board = Board::deserialize(table).map_err(Reason::Toml)?;
    if board.id == SOFTWARE {
        board.decoders.iter_mut().for_each(|one| one.software = true);
        board.encoders.iter_mut().for_each(|one| one.software = true);
    }
    if board.schema != 1 {
        return Err(Reason::Schema(board.schema));
    }
    if let Some(error) = board.rules.bad_expression() {
        return Err(Reason::Expression(error));
    }
    let outs = board.decoders.iter().map(|one| &one.out.memory);
    let ins = board.encoders.iter().map(|one| &one.input.memory);
    let scaled = board.scalers.iter().flat_map(|one| one.input.iter().chain(&one.out));
    let unknown = outs
        .chain(ins)
        .chain(scaled)
        .find(|name| *name != super::SYSTEM && !board.memory.contains_key(*name));
    match unknown {
        Some(name) => Err(Reason::NoMemory(name.clone())),
        None => Ok(board),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[&str]) -> Result<Boards, BadProfile> {
        Boards::whole(texts.iter().map(|text| ("a.toml".to_owned(), (*text).to_owned(), None)).collect())
    }

    const BASE: &str = r#"
        schema = 1
        id = "base"
        title = "Base"
        status = "experimental"
        abstract = true
        [[decoder]]
        codec = "h264"
        factory = ["old"]
        package = "p"
        out = { formats = ["NV12"] }
        set = { a = "1", b = "1" }
    "#;

    #[test]
    fn every_shipped_profile_is_read_and_every_file_is_shipped() {
        let boards = Boards::shipped().unwrap();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("boards");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut files: Vec<String> =
            files.filter_map(|name| Some(name.to_str()?.strip_suffix(".toml")?.to_owned())).collect();
        files.sort();
        let mut shipped: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).collect();
        shipped.sort_unstable();
        assert_eq!(files, shipped);
        for (name, _) in SHIPPED {
            assert!(boards.get(name).is_some(), "{name} has another id than its file name");
        }
    }

    #[test]
    fn a_probe_opens_no_more_encoders_than_a_profile_knows_to_be_safe() {
        let harm = regex::Regex::new(r"(?i)at once|freez|lock\w* .*up\b").unwrap();
        let boards = Boards::shipped().unwrap();
        let mut known = Vec::new();
        for Profile { board, .. } in boards.all() {
            let harmful = board.notes.iter().any(|note| harm.is_match(note));
            for one in board.encoders.iter().filter(|one| !one.software) {
                assert_eq!(one.max_instances > 0, harmful, "{}: {:?}", board.id, one.factory);
            }
            known.extend(harmful.then_some(board.id.as_str()));
        }
        assert_eq!(known, ["rk3568-mpp", "rk3588-mpp", "rockchip-common"]);
    }

    #[test]
    fn a_profile_is_laid_over_the_one_it_extends() {
        let own = r#"
            schema = 1
            id = "mine"
            title = "Mine"
            extends = "base"
            [[decoder]]
            codec = "hevc"
            factory = ["new"]
            package = "q"
            out = { formats = ["NV12"] }
            [[decoder]]
            codec = "h264"
            factory = ["old"]
            set = { b = "2" }
        "#;
        let boards = of(&[BASE, own]).unwrap();
        let mine = boards.get("mine").unwrap();
        assert!(!mine.is_abstract);
        assert_eq!(
            mine.decoders.iter().map(|one| one.factory[0].as_str()).collect::<Vec<_>>(),
            ["new", "old"]
        );
        assert_eq!(mine.decoders[1].set, [("a", "1"), ("b", "2")].map(|(k, v)| (k.into(), v.into())).into());
    }

    #[test]
    fn a_users_profile_may_extend_the_shipped_one_of_its_own_name() {
        let own = "schema = 1\nid = 'base'\ntitle = 'Mine'\nextends = 'base'\n[[decoder]]\ncodec = 'h264'\nfactory = ['old']\nremove = true\n";
        let boards = of(&[BASE, own]).unwrap();
        let base = boards.get("base").unwrap();
        assert_eq!((base.title.as_str(), base.decoders.len()), ("Mine", 0));
    }

    #[test]
    fn an_entry_is_about_all_of_its_codec_and_factory_or_those_in_the_memory_that_it_names() {
        let base = r#"
            schema = 1
            id = "base"
            title = "Base"
            status = "experimental"
            [memory.dmabuf]
            [[encoder]]
            codec = "h264"
            factory = ["enc"]
            package = "p"
            in = { memory = "dmabuf", formats = ["NV12"] }
            [[encoder]]
            codec = "h264"
            factory = ["enc"]
            package = "p"
            in = { formats = ["NV12"] }
        "#;
        let with = |more: &str| {
            let own = format!(
                "schema = 1\nid = 'mine'\ntitle = 'Mine'\nextends = 'base'\n[[encoder]]\ncodec = 'h264'\nfactory = ['enc']\n{more}"
            );
            let boards = of(&[base, &own]).unwrap();
            let encoders = &boards.get("mine").unwrap().encoders;
            encoders.iter().map(|one| (one.input.memory.clone(), one.block.clone())).collect::<Vec<_>>()
        };
        let is = |memory: &str, block: &str| (memory.to_owned(), block.to_owned());
        assert_eq!(with("remove = true"), []);
        assert_eq!(with("in = { memory = 'dmabuf' }\nremove = true"), [is("system", "")]);
        assert_eq!(with("in = { memory = 'system' }\nremove = true"), [is("dmabuf", "")]);
        assert_eq!(with("block = 'x'"), [is("dmabuf", "x"), is("system", "x")]);
        assert_eq!(with("in = { memory = 'system' }\nblock = 'x'"), [is("dmabuf", ""), is("system", "x")]);
    }

    #[test]
    fn a_bad_profile_is_told_by_its_name_and_reason() {
        let text = |texts: &[&str]| of(texts).unwrap_err().to_string();
        let with = |more: &str| format!("{BASE}\n{more}");
        assert!(text(&["title = 'x'"]).contains("has no id"));
        assert!(text(&["schema = 1\nid = 'a'\nextends = 'b'"]).contains("extends b, which is not there"));
        let circle = ["schema = 1\nid = 'a'\nextends = 'b'", "schema = 1\nid = 'b'\nextends = 'a'"];
        assert!(text(&circle).contains("extends itself"));
        assert!(text(&[&with("[match]\ndt_model = ['(']")]).contains("regex"));
        assert!(text(&[&with("[colour]\nx = 1")]).contains("colour"));
        assert!(text(&[&BASE.replace("{ formats", "{ memory = \"nvmm\", formats")]).contains("nvmm"));
        assert!(text(&[&BASE.replace("schema = 1", "schema = 2")]).contains("schema 2"));
    }
}
