//! RAUC bundles: `squashfs, hash tree, CMS, length of the CMS`. In format verity the manifest is the CMS's content.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

use headwater_protocol::update::BundleKind;
use openssl::cms::{CMSOptions, CmsContentInfo};

use super::{About, BundleError, signers};

/// A manifest is some hundred bytes, each certificate beside it one or two thousand.
const MAX_CMS: u64 = 1 << 20;

pub(super) fn read(file: &mut File) -> Result<About, BundleError> {
    let size = file.seek(SeekFrom::End(0))?;
    let mut length = [0u8; 8];
    let end = size.checked_sub(8).ok_or(BundleError::Damaged("it has no signature"))?;
    file.seek(SeekFrom::Start(end))?;
    file.read_exact(&mut length)?;
    let length = u64::from_be_bytes(length);
    if length == 0 || length > MAX_CMS || length > end {
        return Err(BundleError::Damaged("its last bytes are not the length of a signature"));
    }
    file.seek(SeekFrom::Start(end - length))?;
    let mut der = Vec::new();
    file.take(length).read_to_end(&mut der)?;
    let manifest = content(&der)?;
    let manifest =
        String::from_utf8(manifest).map_err(|_| BundleError::Manifest("it is not UTF-8".to_owned()))?;
    let get = |section, key| value(&manifest, section, key);
    match get("bundle", "format") {
        Some("verity") => {}
        Some("crypt") => return Err(BundleError::Encrypted),
        Some(_) | None => return Err(BundleError::Plain),
    }
    Ok(About {
        kind: BundleKind::Rauc,
        compatible: get("update", "compatible").ok_or(BundleError::Lacks("compatible"))?.to_owned(),
        version: get("update", "version").ok_or(BundleError::Lacks("version"))?.to_owned(),
        description: get("update", "description").unwrap_or_default().to_owned(),
        packages: Vec::new(),
        signers: signers(&der),
    })
}

/// What was signed, taken out without trusting anybody.
fn content(der: &[u8]) -> Result<Vec<u8>, BundleError> {
    let mut cms = CmsContentInfo::from_der(der)?;
    let mut content = Vec::new();
    let flags = CMSOptions::BINARY
        | CMSOptions::NO_SIGNER_CERT_VERIFY
        | CMSOptions::NO_ATTR_VERIFY
        | CMSOptions::NO_CONTENT_VERIFY;
    match cms.verify(None, None, None, Some(&mut content), flags) {
        Ok(()) => Ok(content),
        Err(error) => {
            let says = |reason: &str| error.errors().iter().any(|e| e.reason() == Some(reason));
            // In format plain the manifest is in the squashfs, and the signature stands apart.
            if says("no content") {
                Err(BundleError::Plain)
            } else if says("type not signed data") || says("content type not signed data") {
                Err(BundleError::Encrypted)
            } else {
                Err(error.into())
            }
        }
    }
}

/// A key of a section, as GLib's key files have them.
fn value<'a>(text: &'a str, section: &str, key: &str) -> Option<&'a str> {
    let mut here = false;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            here = name == section;
        } else if here
            && let Some((name, value)) = line.split_once('=')
            && name.trim() == key
        {
            return Some(value.trim());
        }
    }
    None
}
