//! What a file to install says of itself: RAUC bundles of format verity, and our own bundles of packages.
//!
//! Nothing is verified here: the boards hold the certificates that count. What cannot be read is refused before it
//! reaches them.

mod make;
mod packages;
mod rauc;

use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use headwater_protocol::packages::Package;
use headwater_protocol::update::BundleKind;
use serde::{Deserialize, Serialize};

pub use make::{MakeError, make};

/// What a bundle says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    pub kind: BundleKind,
    /// RAUC's `compatible`, or the Debian architecture.
    pub compatible: String,
    pub version: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Of a bundle of packages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<Package>,
    /// Who signed it, as the signature's certificates say: a claim.
    pub signers: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("the bundle cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error(
        "this is neither a RAUC bundle nor a bundle of packages; `headwater bundle` makes the latter from .deb files"
    )]
    Unknown,
    #[error("the bundle is cut off or damaged: {0}")]
    Damaged(&'static str),
    #[error(
        "this RAUC bundle has the format `plain`, which boards do not take; build it with `format=verity` in the \
         [bundle] section of its manifest"
    )]
    Plain,
    #[error("this RAUC bundle is encrypted; its manifest cannot be read here. Build it with `format=verity`")]
    Encrypted,
    #[error("the signature is no CMS in DER: {0}")]
    Signature(#[from] openssl::error::ErrorStack),
    #[error("the manifest lacks {0}")]
    Lacks(&'static str),
    #[error("the manifest is not as expected: {0}")]
    Manifest(String),
}

/// Longest version or compatible: they are shown, compared and sent to each node.
const LONGEST: usize = 128;

pub fn read(path: &Path) -> Result<About, BundleError> {
    let mut file = std::fs::File::open(path)?;
    let mut magic = [0u8; 4];
    let about = match file.read_exact(&mut magic) {
        // A squashfs comes first.
        Ok(()) if &magic == b"hsqs" => rauc::read(&mut file)?,
        Ok(()) => {
            file.seek(SeekFrom::Start(0))?;
            packages::read(file)?
        }
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(BundleError::Unknown),
        Err(error) => return Err(error.into()),
    };
    let short = |text: &str| !text.is_empty() && text.len() <= LONGEST && !text.chars().any(char::is_control);
    if !short(&about.version) {
        return Err(BundleError::Lacks("a version of 1 to 128 characters"));
    }
    if !short(&about.compatible) {
        return Err(BundleError::Lacks("what it is for, in 1 to 128 characters"));
    }
    Ok(about)
}

/// Names of the certificates in a signature.
fn signers(der: &[u8]) -> Vec<String> {
    let Ok(signature) = openssl::pkcs7::Pkcs7::from_der(der) else { return Vec::new() };
    let certificates = signature.signed().and_then(|signed| signed.certificates());
    certificates.map_or_else(Vec::new, |all| all.iter().map(name).collect())
}

/// `O=…, CN=…`
fn name(certificate: &openssl::x509::X509Ref) -> String {
    let parts = certificate.subject_name().entries().filter_map(|entry| {
        let key = entry.object().nid().short_name().ok()?;
        Some(format!("{key}={}", entry.data().to_string().ok()?))
    });
    parts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
