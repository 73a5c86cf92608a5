//! A small CA.

use std::fs;
use std::path::Path;

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{HasPublic, PKey, PKeyRef, Private};
use openssl::x509::extension::{BasicConstraints, KeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509NameBuilder, X509NameRef, X509Req};

#[derive(Clone)]
pub(crate) struct Ca {
    pub(crate) certificate: X509,
    pub(crate) key: PKey<Private>,
}

fn new_key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

fn builder(name: &str, issuer: Option<&X509NameRef>, key: &PKeyRef<impl HasPublic>) -> X509Builder {
    let mut subject = X509NameBuilder::new().unwrap();
    subject.append_entry_by_nid(Nid::COMMONNAME, name).unwrap();
    let subject = subject.build();
    let mut serial = BigNum::new().unwrap();
    serial.rand(100, MsbOption::MAYBE_ZERO, false).unwrap();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder.set_issuer_name(issuer.unwrap_or(&subject)).unwrap();
    builder.set_pubkey(key).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
    builder
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let key = new_key();
        let mut builder = builder(name, None, &key);
        builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
        builder
            .append_extension(KeyUsage::new().critical().key_cert_sign().crl_sign().build().unwrap())
            .unwrap();
        builder.sign(&key, MessageDigest::sha256()).unwrap();
        Self { certificate: builder.build(), key }
    }

    pub(crate) fn fingerprint(&self) -> String {
        let digest = self.certificate.digest(MessageDigest::sha256()).unwrap();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(crate) fn pem(&self) -> String {
        String::from_utf8(self.certificate.to_pem().unwrap()).unwrap()
    }

    fn issue(&self, name: &str, key: &PKeyRef<impl HasPublic>) -> X509 {
        let mut builder = builder(name, Some(self.certificate.subject_name()), key);
        let mut names = SubjectAlternativeName::new();
        let names = if name.parse::<std::net::IpAddr>().is_ok() { names.ip(name) } else { names.dns(name) };
        let names = names.build(&builder.x509v3_context(Some(&self.certificate), None)).unwrap();
        builder.append_extension(names).unwrap();
        builder.sign(&self.key, MessageDigest::sha256()).unwrap();
        builder.build()
    }

    pub(crate) fn server(&self) -> (X509, PKey<Private>) {
        let key = new_key();
        (self.issue("127.0.0.1", &key), key)
    }

    pub(crate) fn sign(&self, csr: &str) -> String {
        let csr = X509Req::from_pem(csr.as_bytes()).unwrap();
        let key = csr.public_key().unwrap();
        assert!(csr.verify(&key).unwrap());
        let name = csr.subject_name().entries_by_nid(Nid::COMMONNAME).next().unwrap();
        let name = String::from_utf8(name.data().as_slice().to_vec()).unwrap();
        String::from_utf8(self.issue(&name, &key).to_pem().unwrap()).unwrap()
    }

    pub(crate) fn write(&self, folder: &Path, file: &str, name: &str) {
        let key = new_key();
        fs::write(folder.join("ca.crt"), self.pem()).unwrap();
        fs::write(folder.join(format!("{file}.crt")), self.issue(name, &key).to_pem().unwrap()).unwrap();
        fs::write(folder.join(format!("{file}.key")), key.private_key_to_pem_pkcs8().unwrap()).unwrap();
    }
}
