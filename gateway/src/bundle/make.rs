//! Makes a bundle of packages, on the operator's machine.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;

use headwater_protocol::packages::{MANIFEST, Package, PackageManifest, SIGNATURE, is_ours};
use headwater_protocol::update::BundleKind;
use openssl::cms::{CMSOptions, CmsContentInfo};
use openssl::pkey::PKey;
use openssl::stack::Stack;
use openssl::x509::X509;

use super::packages::sha256;

/// Its version is the bundle's, where it is among the packages.
const FIRST: &str = "headwater-agent";

#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    #[error("cannot {verb} {}: {source}", path.display())]
    File { verb: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot run dpkg-deb, which reads the packages: {0}; install the package dpkg")]
    Dpkg(io::Error),
    #[error("{} is no Debian package: {text}", path.display())]
    NoPackage { path: PathBuf, text: String },
    #[error("{} is for {found}, the others are for {wanted}; a bundle is for one architecture", path.display())]
    Architecture { path: PathBuf, found: String, wanted: String },
    #[error("every package is for any architecture; add {FIRST}, which says which boards the bundle is for")]
    AnyArchitecture,
    #[error("the packages have different versions, and {FIRST} is not among them")]
    Version,
    #[error(
        "{0} is none of Headwater's packages; boards install only those whose name begins with headwater"
    )]
    Foreign(String),
    #[error("two packages are called {0}")]
    Twice(String),
    #[error("the key or the certificate cannot be used: {0}; both must be PEM, and belong together")]
    Key(#[from] openssl::error::ErrorStack),
    #[error("the certificate file holds no certificate")]
    NoCertificate,
    #[error("the manifest cannot be written: {0}")]
    Json(#[from] serde_json::Error),
}

/// Reads the packages, signs their manifest, and writes `out`. The certificate file may hold the chain, the signer's first.
pub fn make(
    debs: &[PathBuf],
    key: &Path,
    certificate: &Path,
    out: &Path,
) -> Result<PackageManifest, MakeError> {
    let manifest = manifest(debs)?;
    let text = serde_json::to_vec_pretty(&manifest)?;
    let signature = sign(&text, key, certificate)?;
    let mut part = out.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let written = write(&part, &text, &signature, debs, &manifest)
        .and_then(|()| std::fs::rename(&part, out).map_err(failed("write", out)));
    if written.is_err() {
        // The whole or nothing; that it is gone already is as good.
        let _ = std::fs::remove_file(&part);
    }
    written.map(|()| manifest)
}

fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MakeError {
    let path = path.to_owned();
    move |source| MakeError::File { verb, path, source }
}

fn manifest(debs: &[PathBuf]) -> Result<PackageManifest, MakeError> {
    let mut packages: Vec<Package> = Vec::new();
    let mut architecture: Option<String> = None;
    for path in debs {
        let [package, version, of] = fields(path)?;
        if !is_ours(&package) {
            return Err(MakeError::Foreign(package));
        }
        match &architecture {
            _ if of == "all" => {}
            None => architecture = Some(of),
            Some(wanted) if *wanted == of => {}
            Some(wanted) => {
                return Err(MakeError::Architecture {
                    path: path.clone(),
                    found: of,
                    wanted: wanted.clone(),
                });
            }
        }
        if packages.iter().any(|other| other.package == package) {
            return Err(MakeError::Twice(package));
        }
        let mut file = File::open(path).map_err(failed("read", path))?;
        let sha256 = sha256(&mut file).map_err(failed("read", path))?;
        packages.push(Package { file: format!("{package}.deb"), package, version, sha256 });
    }
    let first = packages.iter().find(|package| package.package == FIRST);
    let same = packages.windows(2).all(|pair| pair[0].version == pair[1].version);
    let version = match (first, packages.first()) {
        (Some(package), _) => package.version.clone(),
        (None, Some(package)) if same => package.version.clone(),
        (None, Some(_) | None) => return Err(MakeError::Version),
    };
    let architecture = architecture.ok_or(MakeError::AnyArchitecture)?;
    Ok(PackageManifest { kind: BundleKind::Deb, architecture, version, packages })
}

/// Name, version and architecture of a package.
fn fields(path: &Path) -> Result<[String; 3], MakeError> {
    let output = Command::new("dpkg-deb")
        .arg("--showformat=${Package}\\n${Version}\\n${Architecture}\\n")
        .arg("--show")
        .arg(path)
        .output()
        .map_err(MakeError::Dpkg)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    match <[String; 3]>::try_from(lines) {
        Ok(fields) if output.status.success() => Ok(fields),
        Ok(_) | Err(_) => {
            let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(MakeError::NoPackage { path: path.to_owned(), text })
        }
    }
}

fn sign(text: &[u8], key: &Path, certificate: &Path) -> Result<Vec<u8>, MakeError> {
    let read = |path: &Path| std::fs::read(path).map_err(failed("read", path));
    let key = PKey::private_key_from_pem(&read(key)?)?;
    let mut chain = X509::stack_from_pem(&read(certificate)?)?.into_iter();
    let signer = chain.next().ok_or(MakeError::NoCertificate)?;
    let mut others = Stack::new()?;
    for certificate in chain {
        others.push(certificate)?;
    }
    let flags = CMSOptions::BINARY | CMSOptions::DETACHED;
    Ok(CmsContentInfo::sign(Some(&signer), Some(&key), Some(&others), Some(text), flags)?.to_der()?)
}

fn write(
    path: &Path,
    text: &[u8],
    signature: &[u8],
    debs: &[PathBuf],
    manifest: &PackageManifest,
) -> Result<(), MakeError> {
    let cannot = || failed("write", path);
    let mut tar = tar::Builder::new(File::create(path).map_err(cannot())?);
    let header = |size: u64| {
        let mut header = tar::Header::new_ustar();
        // The same packages give the same bytes, but for the signature's time.
        header.set_size(size);
        header.set_mode(0o644);
        header.set_mtime(0);
        header
    };
    for (name, bytes) in [(MANIFEST, text), (SIGNATURE, signature)] {
        tar.append_data(&mut header(bytes.len() as u64), name, bytes).map_err(cannot())?;
    }
    for (deb, package) in debs.iter().zip(&manifest.packages) {
        let mut file = File::open(deb).map_err(failed("read", deb))?;
        let size = file.seek(SeekFrom::End(0)).map_err(failed("read", deb))?;
        file.seek(SeekFrom::Start(0)).map_err(failed("read", deb))?;
        tar.append_data(&mut header(size), &package.file, file).map_err(cannot())?;
    }
    tar.into_inner().and_then(|file| file.sync_all()).map_err(cannot())
}
