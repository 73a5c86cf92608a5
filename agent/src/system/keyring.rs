//! Whose bundles of packages are installed here: certificates in one file, which root alone writes.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use openssl::nid::Nid;
use openssl::x509::X509;

use super::config::Config;
use crate::files;

/// Makes the certificates in `file`, PEM, the only ones that are trusted; says whose they are. What else is in the file,
/// a private key say, stays out of the keyring, which anybody may read.
pub(super) fn trust(config: &Config, file: &Path) -> anyhow::Result<Vec<String>> {
    let pem = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let certificates =
        X509::stack_from_pem(&pem).with_context(|| format!("{} is not PEM", file.display()))?;
    ensure!(!certificates.is_empty(), "{} holds no certificate", file.display());
    let mut text = Vec::new();
    for certificate in &certificates {
        text.extend(certificate.to_pem()?);
    }
    files::write_atomically(&config.update_keyring, &text, 0o644)
        .with_context(|| format!("cannot write {}; run this with sudo", config.update_keyring.display()))?;
    Ok(certificates.iter().map(name).collect())
}

fn name(certificate: &X509) -> String {
    let name = certificate.subject_name().entries_by_nid(Nid::COMMONNAME).next();
    let name = name.map(|name| String::from_utf8_lossy(name.data().as_slice()).into_owned());
    name.unwrap_or_else(|| "somebody without a name".to_owned())
}
