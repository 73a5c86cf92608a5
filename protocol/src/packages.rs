//! A bundle of packages: a tar of plain files without folders; the manifest, its signature, then the packages.

use serde::{Deserialize, Serialize};

use crate::update::BundleKind;

pub const MANIFEST: &str = "manifest.json";
/// A detached CMS signature, DER, of exactly the bytes of [`MANIFEST`].
pub const SIGNATURE: &str = "manifest.p7s";
/// Of the manifest and of its signature, bytes; a dozen packages need a twentieth.
pub const MAX_TEXT: u64 = 64 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageManifest {
    pub kind: BundleKind,
    /// Debian's: `amd64`, `arm64`, `armhf`
    pub architecture: String,
    pub version: String,
    pub packages: Vec<Package>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Its name in the bundle.
    pub file: String,
    pub package: String,
    pub version: String,
    pub sha256: String,
}

/// Boards install no others.
pub fn is_ours(package: &str) -> bool {
    package == "headwater" || package.starts_with("headwater-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packages_of_ours_have_our_name() {
        assert!(is_ours("headwater") && is_ours("headwater-agent"));
        assert!(!is_ours("headwaters") && !is_ours("openssh-server") && !is_ours(""));
    }
}
