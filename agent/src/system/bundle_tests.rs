//! Bundles made and signed with `openssl` and `tar`, as an operator makes them.

use std::path::PathBuf;
use std::process::Command;

use headwater_protocol::update::BundleKind;

use super::*;

struct Maker {
    home: tempfile::TempDir,
}

impl Maker {
    fn new() -> Self {
        let maker = Self { home: tempfile::tempdir().unwrap() };
        for name in ["signer", "stranger"] {
            maker.run(
                "openssl",
                &[
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:prime256v1",
                    "-nodes",
                    "-days",
                    "1",
                    "-subj",
                    &format!("/CN={name}"),
                    "-keyout",
                    &format!("{name}.key"),
                    "-out",
                    &format!("{name}.pem"),
                ],
            );
        }
        fs::create_dir(maker.path("in")).unwrap();
        maker
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn run(&self, program: &str, args: &[&str]) {
        let output = Command::new(program).args(args).current_dir(self.home.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn package(&self, file: &str, content: &str) -> Package {
        fs::write(self.path("in").join(file), content).unwrap();
        let digest = openssl::sha::sha256(content.as_bytes());
        Package {
            file: file.into(),
            package: file.split('_').next().unwrap().into(),
            version: "2".into(),
            sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    fn sign(&self, by: &str, packages: Vec<Package>) {
        let manifest = PackageManifest {
            kind: BundleKind::Deb,
            architecture: "arm64".into(),
            version: "2".into(),
            packages,
        };
        fs::write(self.path("in/manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
        self.run(
            "openssl",
            &[
                "cms",
                "-sign",
                "-binary",
                "-in",
                "in/manifest.json",
                "-signer",
                &format!("{by}.pem"),
                "-inkey",
                &format!("{by}.key"),
                "-outform",
                "DER",
                "-out",
                "in/manifest.p7s",
            ],
        );
    }

    fn unpack(&self) -> Result<PackageManifest, Fault> {
        self.run("tar", &["-cf", "bundle", "-C", "in", "."]);
        self.read()
    }

    fn read(&self) -> Result<PackageManifest, Fault> {
        let out = self.path("out");
        let _ = fs::remove_dir_all(&out);
        fs::create_dir(&out).unwrap();
        unpack(&self.path("bundle"), &self.path("signer.pem"), &out)
    }

    fn refused(&self, word: &str) {
        let fault = self.unpack().unwrap_err();
        assert_eq!(fault.code, Code::BadBundle);
        assert!(fault.text.contains(word), "{}", fault.text);
    }
}

#[test]
fn what_was_signed_is_unpacked_and_nothing_else() {
    let maker = Maker::new();
    let package = maker.package("headwater-agent_2_arm64.deb", "program");
    maker.sign("signer", vec![package.clone()]);
    assert_eq!(maker.unpack().unwrap().packages, [package]);
    assert_eq!(fs::read(maker.path("out/headwater-agent_2_arm64.deb")).unwrap(), b"program");
    fs::write(maker.path("in/extra"), "x").unwrap();
    maker.refused("not in its manifest");
}

#[test]
fn a_signature_of_a_stranger_or_of_another_text_is_refused() {
    let maker = Maker::new();
    let package = maker.package("headwater-agent_2_arm64.deb", "program");
    maker.sign("stranger", vec![package.clone()]);
    maker.refused("not signed by anybody in this node's keyring");
    maker.sign("signer", vec![package]);
    let manifest = maker.path("in/manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("\"2\"", "\"3\"")).unwrap();
    maker.refused("not signed");
    fs::remove_file(maker.path("in/manifest.p7s")).unwrap();
    maker.refused("no manifest.p7s");
    fs::write(maker.path("in/manifest.p7s"), "junk").unwrap();
    maker.refused("not signed");
}

#[test]
fn without_a_keyring_nobody_is_trusted() {
    let maker = Maker::new();
    maker.sign("signer", vec![]);
    fs::remove_file(maker.path("signer.pem")).unwrap();
    let fault = maker.unpack().unwrap_err();
    assert!(fault.code == Code::Unsupported && fault.text.contains("keyring"), "{fault}");
}

#[test]
fn another_file_under_a_signed_name_a_missing_one_and_a_cut_bundle_are_refused() {
    let maker = Maker::new();
    let package = maker.package("headwater-agent_2_arm64.deb", "program");
    maker.sign("signer", vec![package.clone()]);
    let file = maker.path("in").join(&package.file);
    fs::write(&file, "pr0gram").unwrap();
    maker.refused("not the file that was signed");
    fs::remove_file(&file).unwrap();
    maker.refused("is missing");
    fs::write(&file, "program".repeat(10_000)).unwrap();
    maker.unpack().unwrap_err();
    let whole = fs::read(maker.path("bundle")).unwrap();
    for length in [0, 100, 700, whole.len() / 2] {
        fs::write(maker.path("bundle"), &whole[..length]).unwrap();
        assert_eq!(maker.read().unwrap_err().code, Code::BadBundle, "{length} bytes");
    }
}

#[test]
fn names_that_lead_elsewhere_links_and_foreign_packages_are_refused_even_signed() {
    let maker = Maker::new();
    let package = maker.package("headwater-agent_2_arm64.deb", "program");
    let named =
        |file: &str, name: &str| Package { file: file.into(), package: name.into(), ..package.clone() };
    maker.sign("signer", vec![named("../../headwater-agent.deb", "headwater-agent")]);
    maker.refused("is no name of a file");
    maker.sign("signer", vec![named("headwater-agent/../x.deb", "headwater-agent")]);
    maker.refused("is no name of a file");
    maker.sign("signer", vec![named("bash_2_arm64.deb", "bash")]);
    maker.refused("only headwater's own");
    maker.sign("signer", vec![package.clone()]);
    let file = maker.path("in").join(&package.file);
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/etc/shadow", &file).unwrap();
    maker.refused("no file");
}
