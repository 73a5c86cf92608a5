//! Real bundles, made by `rauc`, `dpkg-deb` and `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::Digest as _;

use super::*;

fn run(program: &str, arguments: &[&str], dir: &Path) {
    let output = Command::new(program).args(arguments).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// `key.pem` and `cert.pem` of somebody.
fn key(dir: &Path) {
    let subject = ["-subj", "/O=Test fleet/CN=signer", "-addext", "keyUsage=digitalSignature"];
    let request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem"];
    run("openssl", &[&request[..], &subject[..]].concat(), dir);
}

fn rauc(dir: &Path, format: &str) -> PathBuf {
    let content = dir.join("content");
    std::fs::create_dir_all(&content).unwrap();
    // Nothing that squashfs could shrink below what a hash tree needs.
    let noise = (0..1024u32).flat_map(|at| sha2::Sha256::digest(at.to_be_bytes()));
    std::fs::write(content.join("rootfs.ext4"), noise.collect::<Vec<u8>>()).unwrap();
    let manifest = format!(
        "[update]\ncompatible=board-x\nversion=2026.11.1\n\n{format}[image.rootfs]\nfilename=rootfs.ext4\n"
    );
    std::fs::write(content.join("manifest.raucm"), manifest).unwrap();
    let out = dir.join("out.raucb");
    let _ = std::fs::remove_file(&out);
    run("rauc", &["bundle", "--cert", "cert.pem", "--key", "key.pem", "content", "out.raucb"], dir);
    out
}

fn deb(dir: &Path, name: &str, version: &str, architecture: &str) -> PathBuf {
    let root = dir.join(format!("{name}-{architecture}"));
    std::fs::create_dir_all(root.join("DEBIAN")).unwrap();
    let control = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: T <t@example.org>\nDescription: test\n"
    );
    std::fs::write(root.join("DEBIAN/control"), control).unwrap();
    let out = dir.join(format!("{name}_{version}_{architecture}.deb"));
    run("dpkg-deb", &["--root-owner-group", "-b", root.to_str().unwrap(), out.to_str().unwrap()], dir);
    out
}

#[test]
fn a_verity_bundle_says_what_it_is_and_a_plain_one_how_to_build_it() {
    let dir = tempfile::tempdir().unwrap();
    key(dir.path());
    let about = read(&rauc(dir.path(), "[bundle]\nformat=verity\n\n")).unwrap();
    assert_eq!((about.kind, about.compatible.as_str()), (BundleKind::Rauc, "board-x"));
    assert_eq!(about.version, "2026.11.1");
    assert_eq!(about.signers, ["O=Test fleet, CN=signer"]);
    let plain = read(&rauc(dir.path(), "")).unwrap_err();
    assert!(matches!(plain, BundleError::Plain), "{plain}");
    assert!(plain.to_string().contains("format=verity"));
}

#[test]
fn a_bundle_of_packages_is_read_as_it_was_made_and_a_changed_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    key(dir);
    let debs =
        [deb(dir, "headwater-worker", "0.1.9", "all"), deb(dir, "headwater-agent", "0.2.0-1", "arm64")];
    let out = dir.join("out.hwb");
    let made = make(&debs, &dir.join("key.pem"), &dir.join("cert.pem"), &out).unwrap();
    let about = read(&out).unwrap();
    assert_eq!(
        (about.kind, about.compatible.as_str(), about.version.as_str()),
        (BundleKind::Deb, "arm64", "0.2.0-1")
    );
    assert_eq!(about.packages, made.packages);
    assert_eq!(about.packages[0].sha256, crate::secret::sha256_hex(&std::fs::read(&debs[0]).unwrap()));
    assert_eq!(about.signers, ["O=Test fleet, CN=signer"]);

    // Other people's tools read it too: this is how a board checks it.
    run("tar", &["-xf", "out.hwb"], dir);
    let verify =
        ["cms", "-verify", "-binary", "-inform", "DER", "-in", "manifest.p7s", "-content", "manifest.json"];
    run(
        "openssl",
        &[&verify[..], &["-CAfile", "cert.pem", "-purpose", "any", "-out", "/dev/null"]].concat(),
        dir,
    );

    let bytes = std::fs::read(&out).unwrap();
    let changed = |at: &[u8], to: &[u8]| {
        let mut bytes = bytes.clone();
        let place = bytes.windows(at.len()).position(|window| window == at).unwrap();
        bytes[place..place + to.len()].copy_from_slice(to);
        let file = dir.join("changed.hwb");
        std::fs::write(&file, bytes).unwrap();
        read(&file).unwrap_err().to_string()
    };
    assert!(changed(b"0.2.0-1", b"0.3.0-1").contains("signature"));
    assert!(changed(b"debian-binary", b"Debian-binary").contains("not the one that the manifest names"));
    std::fs::write(&out, &bytes[..bytes.len() / 2]).unwrap();
    assert!(read(&out).is_err(), "cut off in the middle");
}

#[test]
fn packages_that_do_not_belong_together_are_not_bundled() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    key(dir);
    let bundle = |debs: &[PathBuf]| {
        make(debs, &dir.join("key.pem"), &dir.join("cert.pem"), &dir.join("out")).unwrap_err().to_string()
    };
    let agent = deb(dir, "headwater-agent", "0.2.0", "arm64");
    assert!(bundle(&[agent.clone(), deb(dir, "headwater-x", "1", "amd64")]).contains("one architecture"));
    assert!(bundle(&[agent.clone(), agent]).contains("two packages"));
    assert!(bundle(&[deb(dir, "headwater-x", "1", "all")]).contains("any architecture"));
    assert!(bundle(&[deb(dir, "bash", "9", "arm64")]).contains("none of Headwater's"));
    assert!(bundle(&[dir.join("key.pem")]).contains("no Debian package"));
    assert!(!dir.join("out").exists() && !dir.join("out.part").exists());
}

#[test]
fn what_is_no_bundle_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    for bytes in [&b""[..], b"hi", &[0; 4096], b"hsqs, but nothing more than that"] {
        std::fs::write(&file, bytes).unwrap();
        let error = read(&file).unwrap_err();
        assert!(matches!(error, BundleError::Unknown | BundleError::Damaged(_)), "{bytes:?}: {error}");
    }
}
