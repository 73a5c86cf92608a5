//! A bundle of packages: a tar with `manifest.json`, its signature `manifest.p7s`, and the packages that it lists.
//!
//! Nothing of it is believed before the signature is: a detached CMS signature, DER, by a certificate of the keyring
//! or below one. Each package is then written while its digest is taken, so what is installed is what was signed.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use headwater_protocol::packages::{MANIFEST, MAX_TEXT, Package, PackageManifest, SIGNATURE, is_ours};
use headwater_protocol::{Code, Fault};
use openssl::cms::{CMSOptions, CmsContentInfo};
use openssl::error::ErrorStack;
use openssl::sha::Sha256;
use openssl::x509::X509;
use openssl::x509::store::{X509Store, X509StoreBuilder};
use openssl::x509::verify::X509VerifyFlags;
use tar::{Archive, Entry, EntryType};

fn bad(text: impl Into<String>) -> Fault {
    Fault::new(Code::BadBundle, text)
}

fn damaged(error: io::Error) -> Fault {
    bad(format!("the bundle is damaged: {error}"))
}

/// Verifies a bundle and writes its packages and its manifest into `folder`.
pub(super) fn unpack(bundle: &Path, keyring: &Path, folder: &Path) -> Result<PackageManifest, Fault> {
    let store = trusted(keyring)?;
    let (json, signature) = words(bundle)?;
    verify(&store, &json, &signature)?;
    let manifest: PackageManifest = serde_json::from_slice(&json)
        .map_err(|error| bad(format!("the manifest cannot be read: {error}")))?;
    for Package { file, package, .. } in &manifest.packages {
        if !is_ours(package) {
            return Err(bad(format!(
                "the bundle has package {package:?}; only headwater's own are installed"
            )));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "._+~-".contains(c);
        if !file.chars().all(plain) || !file.starts_with(package.as_str()) || !file.ends_with(".deb") {
            return Err(bad(format!("{file:?} is no name of a file of {package}")));
        }
    }
    let mut left: Vec<&Package> = manifest.packages.iter().collect();
    each(bundle, |name, entry| {
        if [MANIFEST, SIGNATURE].contains(&name) {
            return Ok(());
        }
        let Some(at) = left.iter().position(|package| package.file == name) else {
            return Err(bad(format!("{name:?} is in the bundle and not in its manifest, or twice")));
        };
        let package = left.swap_remove(at);
        if write(entry, &folder.join(name)).map_err(damaged)? != package.sha256 {
            return Err(bad(format!("{name} is not the file that was signed")));
        }
        Ok(())
    })?;
    if let Some(package) = left.first() {
        return Err(bad(format!("{} is missing in the bundle", package.file)));
    }
    write(&mut json.as_slice(), &folder.join(MANIFEST)).map_err(damaged)?;
    Ok(manifest)
}

/// Calls `with` for each file, in order. Links, folders with something in them and devices have no place in a bundle.
fn each(
    bundle: &Path,
    mut with: impl FnMut(&str, &mut Entry<'_, File>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut archive = Archive::new(File::open(bundle).map_err(damaged)?);
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = path.strip_prefix("./").unwrap_or(&path);
        match entry.header().entry_type() {
            EntryType::Regular => with(name, &mut entry)?,
            EntryType::Directory if name.is_empty() => {}
            other => return Err(bad(format!("{path:?} in the bundle is {other:?} and no file"))),
        }
    }
    Ok(())
}

fn words(bundle: &Path) -> Result<(Vec<u8>, Vec<u8>), Fault> {
    let (mut json, mut signature) = (None, None);
    each(bundle, |name, entry| {
        let place = match name {
            MANIFEST => &mut json,
            SIGNATURE => &mut signature,
            _ => return Ok(()),
        };
        let mut bytes = Vec::new();
        entry.take(MAX_TEXT + 1).read_to_end(&mut bytes).map_err(damaged)?;
        if bytes.len() as u64 > MAX_TEXT || place.replace(bytes).is_some() {
            return Err(bad(format!("{name} is too long, or there are two")));
        }
        Ok(())
    })?;
    let missing = |name| move || bad(format!("the bundle has no {name}"));
    Ok((json.ok_or_else(missing(MANIFEST))?, signature.ok_or_else(missing(SIGNATURE))?))
}

fn trusted(keyring: &Path) -> Result<X509Store, Fault> {
    let path = keyring.display();
    let pem = fs::read(keyring).map_err(|error| {
        Fault::new(
            Code::Unsupported,
            format!(
                "no bundle of packages is trusted here: cannot read the keyring {path}: {error}; on this board, run \
                 `headwater-agent system trust FILE` with the signer's certificate"
            ),
        )
    })?;
    let store = || -> Result<X509Store, ErrorStack> {
        let mut store = X509StoreBuilder::new()?;
        for certificate in X509::stack_from_pem(&pem)? {
            store.add_cert(certificate)?;
        }
        // A board without a battery may not know the time: who is not to be trusted any more leaves the keyring. A
        // certificate of the keyring is trusted itself, whoever signed it.
        store.set_flags(X509VerifyFlags::NO_CHECK_TIME | X509VerifyFlags::PARTIAL_CHAIN)?;
        Ok(store.build())
    };
    store()
        .map_err(|error| Fault::new(Code::Unsupported, format!("the keyring {path} cannot be used: {error}")))
}

fn verify(store: &X509Store, json: &[u8], signature: &[u8]) -> Result<(), Fault> {
    let verify = || {
        CmsContentInfo::from_der(signature)?.verify(None, Some(store), Some(json), None, CMSOptions::BINARY)
    };
    verify().map_err(|error: ErrorStack| {
        let text = "the manifest is not signed by anybody in this node's keyring";
        bad(text).with_detail(error.to_string())
    })
}

/// A new file; its SHA-256.
fn write(from: &mut impl Read, path: &Path) -> io::Result<String> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    let (mut digest, mut chunk) = (Sha256::new(), vec![0; 64 * 1024]);
    loop {
        let n = from.read(&mut chunk)?;
        if n == 0 {
            break;
        }
        digest.update(&chunk[..n]);
        file.write_all(&chunk[..n])?;
    }
    file.sync_all()?;
    Ok(digest.finish().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
#[path = "bundle_tests.rs"]
mod tests;
