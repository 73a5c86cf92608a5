//! The fleet's own small CA, and the certificates it makes.
//!
//! ```text
//! state_dir/ca/ca.pem ca.key ──▶ server.pem   nodes listener and embedded broker
//!                             ├─▶ gateway.pem  this daemon as MQTT client, CN "gateway"
//!                             └─▶ node         CN = node id, O = fleet; its key stays on the node
//! ```
//!
//! Dates are wide on purpose: boards without a battery wake up in the past.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use headwater_protocol::{FleetId, NodeId};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber, date_time_ymd,
};

use crate::secret;

/// Certificate name and MQTT user of this daemon; no node may have it.
pub const GATEWAY: &str = "gateway";

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot {verb} {path}: {source}")]
    File { verb: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{path} is damaged: {source}; restore it, or remove the folder and enrol every node again")]
    Damaged { path: PathBuf, source: rcgen::Error },
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// Why a certificate signing request is not answered with a certificate.
#[derive(Debug, thiserror::Error)]
pub enum CsrError {
    #[error("the certificate request is not PKCS#10 in PEM with a valid signature: {0}")]
    Bad(rcgen::Error),
    #[error("the certificate request's common name is not {0}; make it for the node that the token names")]
    OtherName(NodeId),
    #[error("the certificate could not be made: {0}")]
    Make(rcgen::Error),
}

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pair(key hidden)")
    }
}

#[derive(Debug)]
pub struct Identity {
    pub ca_pem: String,
    /// SHA-256 of the CA's DER, hex; what a token pins.
    pub ca_sha256: String,
    pub server: Pair,
    pub gateway: Pair,
    issuer: Issuer<'static, KeyPair>,
    fleet: FleetId,
}

impl Identity {
    /// Reads the CA, or makes it on the first start; the other certificates are made anew each time.
    pub fn open(dir: &Path, fleet: &FleetId, names: &[String]) -> Result<Self, IdentityError> {
        std::fs::create_dir_all(dir).map_err(|source| IdentityError::File {
            verb: "make",
            path: dir.to_owned(),
            source,
        })?;
        let (ca_path, key_path) = (dir.join("ca.pem"), dir.join("ca.key"));
        if !ca_path.exists() {
            let (certificate, key) = make_ca(fleet)?;
            // The key first: a CA certificate without its key would be taken for a finished CA.
            write(&key_path, key.as_bytes(), 0o600)?;
            write(&ca_path, certificate.as_bytes(), 0o644)?;
        }
        let ca_pem = read(&ca_path)?;
        let damaged = |path: &Path| {
            let path = path.to_owned();
            move |source| IdentityError::Damaged { path, source }
        };
        let key = KeyPair::from_pem(&read(&key_path)?).map_err(damaged(&key_path))?;
        let issuer = Issuer::from_ca_cert_pem(&ca_pem, key).map_err(damaged(&ca_path))?;
        let der = pem_der(&ca_pem).ok_or_else(|| IdentityError::Damaged {
            path: ca_path.clone(),
            source: rcgen::Error::CouldNotParseCertificate,
        })?;
        let server = leaf(&issuer, fleet, GATEWAY, ExtendedKeyUsagePurpose::ServerAuth, names)?;
        let gateway = leaf(&issuer, fleet, GATEWAY, ExtendedKeyUsagePurpose::ClientAuth, &[])?;
        Ok(Self {
            ca_sha256: secret::sha256_hex(&der),
            ca_pem,
            server,
            gateway,
            issuer,
            fleet: fleet.clone(),
        })
    }

    /// Signs what a node asks for. Only its name and its public key are taken from the request.
    pub fn sign(&self, node: &NodeId, csr: &str) -> Result<String, CsrError> {
        let mut request = CertificateSigningRequestParams::from_pem(csr).map_err(CsrError::Bad)?;
        let name = match request.params.distinguished_name.get(&DnType::CommonName) {
            Some(rcgen::DnValue::Utf8String(name)) => Some(name.as_str()),
            Some(rcgen::DnValue::PrintableString(name)) => Some(name.as_str()),
            // Openssl's request tool and every agent of ours write one of the two.
            Some(_) | None => None,
        };
        if name != Some(node.as_str()) {
            return Err(CsrError::OtherName(node.clone()));
        }
        request.params = params(&self.fleet, node.as_str(), ExtendedKeyUsagePurpose::ClientAuth)
            .map_err(|_| CsrError::Make(rcgen::Error::RingUnspecified))?;
        Ok(request.signed_by(&self.issuer).map_err(CsrError::Make)?.pem())
    }
}

/// First certificate of a PEM text.
pub fn pem_der(pem: &str) -> Option<Vec<u8>> {
    x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok().map(|(_, pem)| pem.contents)
}

fn make_ca(fleet: &FleetId) -> Result<(String, String), IdentityError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(1975, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    params.distinguished_name = name(fleet, "Headwater fleet CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(serial()?);
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn leaf(
    issuer: &Issuer<'static, KeyPair>,
    fleet: &FleetId,
    common: &str,
    usage: ExtendedKeyUsagePurpose,
    names: &[String],
) -> Result<Pair, IdentityError> {
    let key = KeyPair::generate()?;
    let mut params = params(fleet, common, usage)?;
    for text in names {
        params.subject_alt_names.push(match text.parse::<IpAddr>() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(text.as_str().try_into()?),
        });
    }
    Ok(Pair { certificate: params.signed_by(&key, issuer)?.pem(), key: key.serialize_pem() })
}

fn params(
    fleet: &FleetId,
    common: &str,
    usage: ExtendedKeyUsagePurpose,
) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(1975, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    params.distinguished_name = name(fleet, common);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial()?);
    Ok(params)
}

fn name(fleet: &FleetId, common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, fleet.as_str());
    name.push(DnType::CommonName, common);
    name
}

fn serial() -> Result<SerialNumber, getrandom::Error> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes)?;
    // Positive and without a leading zero byte, as DER wants it.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn read(path: &Path) -> Result<String, IdentityError> {
    std::fs::read_to_string(path).map_err(|source| IdentityError::File {
        verb: "read",
        path: path.to_owned(),
        source,
    })
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), IdentityError> {
    secret::write_file(path, bytes, mode).map_err(|source| IdentityError::File {
        verb: "write",
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn csr(common: &str) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
    }

    #[test]
    fn the_ca_survives_a_restart_and_its_key_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let fleet = FleetId::new("f").unwrap();
        let first = Identity::open(dir.path(), &fleet, &["localhost".into()]).unwrap().ca_sha256;
        assert_eq!(Identity::open(dir.path(), &fleet, &[]).unwrap().ca_sha256, first);
        let mode = std::fs::metadata(dir.path().join("ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_request_gives_a_client_certificate_for_its_own_name_and_nothing_more() {
        let dir = tempfile::tempdir().unwrap();
        let fleet = FleetId::new("f").unwrap();
        let identity = Identity::open(dir.path(), &fleet, &[]).unwrap();
        let node = NodeId::new("orin-1").unwrap();
        let pem = identity.sign(&node, &csr("orin-1")).unwrap();
        let der = pem_der(&pem).unwrap();
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
        assert_eq!(certificate.subject().to_string(), "O=f, CN=orin-1");
        assert!(!certificate.is_ca(), "the request asked for a CA and got it");
        assert!(matches!(identity.sign(&node, &csr("orin-2")), Err(CsrError::OtherName(_))));
        assert!(matches!(identity.sign(&node, "hello"), Err(CsrError::Bad(_))));
    }
}
