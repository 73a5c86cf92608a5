//! Certificates that played nodes really enrol for.

use std::time::Duration;

use headwater_protocol::enroll::{CA_PATH, CERTIFICATE_PATH, Grant, Request, Token};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use reqwest::{Client, Identity, StatusCode};
use rumqttc::v5::MqttOptions;
use rumqttc::{TlsConfiguration, Transport};

pub(crate) struct Certificate {
    pub(crate) grant: Grant,
    pub(crate) key: String,
}

pub(crate) fn csr(name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.serialize_request(&key).unwrap().pem().unwrap(), key.serialize_pem())
}

/// Posts an enrolment; the status and, where it was granted, the certificate.
pub(crate) async fn enroll(token: &Token, common_name: &str) -> (StatusCode, Result<Certificate, String>) {
    let open = Client::builder().no_proxy().danger_accept_invalid_certs(true).build().unwrap();
    let ca = open.get(format!("{}{CA_PATH}", token.url)).send().await.unwrap().bytes().await.unwrap();
    let der = headwater_gateway::identity::pem_der(std::str::from_utf8(&ca).unwrap()).unwrap();
    assert_eq!(headwater_gateway::secret::sha256_hex(&der), token.ca_sha256, "the token pins another CA");
    let pinned = Client::builder()
        .no_proxy()
        .tls_certs_only([reqwest::Certificate::from_pem(&ca).unwrap()])
        .build()
        .unwrap();
    let (csr, key) = csr(common_name);
    let request = Request { node: token.node.clone(), secret: token.secret.clone(), csr };
    let response =
        pinned.post(format!("{}{CERTIFICATE_PATH}", token.url)).json(&request).send().await.unwrap();
    let status = response.status();
    match status {
        StatusCode::OK => (status, Ok(Certificate { grant: response.json().await.unwrap(), key })),
        _ => (status, Err(response.text().await.unwrap())),
    }
}

impl Certificate {
    pub(crate) fn https(&self) -> Client {
        Client::builder()
            .no_proxy()
            .tls_certs_only([reqwest::Certificate::from_pem(self.grant.ca.as_bytes()).unwrap()])
            .identity(
                Identity::from_pkcs8_pem(self.grant.certificate.as_bytes(), self.key.as_bytes()).unwrap(),
            )
            .build()
            .unwrap()
    }

    pub(crate) fn mqtt(&self, port: u16, client_id: &str) -> MqttOptions {
        let connector = native_tls::TlsConnector::builder()
            .add_root_certificate(native_tls::Certificate::from_pem(self.grant.ca.as_bytes()).unwrap())
            .identity(
                native_tls::Identity::from_pkcs8(self.grant.certificate.as_bytes(), self.key.as_bytes())
                    .unwrap(),
            )
            .build()
            .unwrap();
        let mut options = MqttOptions::new(client_id, &self.grant.broker_host, port);
        options
            .set_transport(Transport::Tls(TlsConfiguration::NativeConnector(connector)))
            .set_keep_alive(Duration::from_secs(5))
            .set_max_packet_size(Some(80_000));
        options
    }
}
