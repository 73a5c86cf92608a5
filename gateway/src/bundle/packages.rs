//! Our bundles of Debian packages: a tar of `manifest.json`, `manifest.p7s` and the packages, in this order.
//!
//! The signature is a detached CMS in DER over the bytes of `manifest.json`, which has the packages' hashes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};

use headwater_protocol::packages::{MANIFEST, MAX_TEXT, Package, PackageManifest, SIGNATURE};
use headwater_protocol::update::BundleKind;
use openssl::cms::{CMSOptions, CmsContentInfo};
use sha2::{Digest, Sha256};

use super::{About, BundleError, signers};
use crate::secret::hex;

pub(super) fn read(file: File) -> Result<About, BundleError> {
    let mut archive = tar::Archive::new(BufReader::new(file));
    let mut entries = archive.entries()?;
    let mut next = || -> Result<Option<(String, tar::Entry<'_, _>)>, BundleError> {
        // What is no tar shows as one that is damaged in its first header.
        let Some(entry) = entries.next() else { return Ok(None) };
        let entry = entry.map_err(|_| BundleError::Unknown)?;
        Ok(Some((String::from_utf8_lossy(&entry.path_bytes()).into_owned(), entry)))
    };
    let mut part = |wanted: &'static str| match next()? {
        Some((name, mut entry)) if name == wanted && entry.size() <= MAX_TEXT => {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            Ok(bytes)
        }
        Some(_) | None => Err(BundleError::Unknown),
    };
    let manifest_bytes = part(MANIFEST)?;
    let signature = part(SIGNATURE)?;
    let manifest: PackageManifest =
        serde_json::from_slice(&manifest_bytes).map_err(|error| BundleError::Manifest(error.to_string()))?;
    if manifest.kind != BundleKind::Deb || manifest.packages.is_empty() {
        return Err(BundleError::Manifest("it names no packages".to_owned()));
    }
    fits(&manifest_bytes, &signature)?;
    let mut missing: BTreeMap<&str, &Package> =
        manifest.packages.iter().map(|package| (package.file.as_str(), package)).collect();
    while let Some((name, mut entry)) = next()? {
        let package = missing.remove(name.as_str()).ok_or_else(|| {
            BundleError::Manifest(format!("the bundle holds {name:?}, which it does not name"))
        })?;
        if sha256(&mut entry)? != package.sha256 {
            return Err(BundleError::Damaged("a package is not the one that the manifest names"));
        }
    }
    if !missing.is_empty() {
        return Err(BundleError::Damaged("a package that the manifest names is missing"));
    }
    Ok(About {
        kind: BundleKind::Deb,
        compatible: manifest.architecture,
        version: manifest.version,
        description: String::new(),
        packages: manifest.packages,
        signers: signers(&signature),
    })
}

/// Whether the signature is one of this manifest, by whomever.
fn fits(manifest: &[u8], signature: &[u8]) -> Result<(), BundleError> {
    let mut cms = CmsContentInfo::from_der(signature)?;
    let flags = CMSOptions::BINARY | CMSOptions::DETACHED | CMSOptions::NO_SIGNER_CERT_VERIFY;
    cms.verify(None, None, Some(manifest), None, flags)
        .map_err(|_| BundleError::Damaged("the signature is not one of its manifest"))
}

pub(super) fn sha256(from: &mut impl Read) -> std::io::Result<String> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0u8; 64 * 1024];
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(hex(&digest.finalize()));
        }
        digest.update(&buffer[..count]);
    }
}
