//! Bundles on their way from the operator to nodes.

use reqwest::Client;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::board::Fate;
use crate::harness::{Gateway, LONG};
use crate::node::Node;
use crate::updates::bundle;

async fn put(gateway: &Gateway, body: Vec<u8>) -> reqwest::Response {
    let request = gateway.client.put(gateway.url("/api/v1/bundles")).bearer_auth(gateway.operator_token());
    request.body(body).send().await.unwrap()
}

#[tokio::test]
async fn a_bundle_is_taken_once_and_only_from_the_operator() {
    let gateway = Gateway::start_with("[limits]\nmax_bundle_mib = 1\n").await;
    let bytes = std::fs::read(bundle(gateway.dir.path(), "0.2.0")).unwrap();
    let stranger =
        gateway.client.put(gateway.url("/api/v1/bundles")).body(bytes.clone()).send().await.unwrap();
    assert_eq!(stranger.status(), 401);
    let first = put(&gateway, bytes.clone()).await;
    assert_eq!(first.status(), 201);
    let stored: serde_json::Value = first.json().await.unwrap();
    assert_eq!((stored["version"].as_str(), stored["compatible"].as_str()), (Some("0.2.0"), Some("board-x")));
    assert_eq!(put(&gateway, bytes.clone()).await.status(), 200, "it is there already");
    let broken = put(&gateway, bytes[..bytes.len() - 100].to_vec()).await;
    assert_eq!(broken.status(), 422);
    assert_eq!(put(&gateway, vec![0; (1 << 20) + 1]).await.status(), 413);
    let list: Vec<serde_json::Value> = gateway.get("/api/v1/bundles").await.json().await.unwrap();
    assert_eq!(list, [stored]);
    assert_eq!(
        std::fs::read_dir(gateway.state().join("bundles")).unwrap().count(),
        2,
        "the file and its note"
    );
}

#[tokio::test]
async fn a_fetch_that_broke_off_is_resumed_with_curl_and_the_nodes_certificate() {
    let gateway = Gateway::start().await;
    let node = Node::start_board(&gateway, "a", Fate::Deaf).await;
    let bytes = std::fs::read(bundle(gateway.dir.path(), "0.2.0")).unwrap();
    let stored: serde_json::Value = put(&gateway, bytes.clone()).await.json().await.unwrap();
    let url = format!("https://{}/v1/bundles/{}", gateway.nodes, stored["sha256"].as_str().unwrap());
    let dir = gateway.dir.path();
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let ca = file("node-ca.pem", &node.certificate.grant.ca);
    let cert = file("node.pem", &node.certificate.grant.certificate);
    let key = file("node.key", &node.certificate.key);
    let curl = async |arguments: &[&str]| {
        let base = ["-sS", "--noproxy", "*", "--cacert", &ca, "--cert", &cert, "--key", &key];
        let command = tokio::process::Command::new("curl").args(base).args(arguments).arg(&url).output();
        let output = command.await.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // Cut off in the middle, then resumed.
    let part = dir.join("part");
    std::fs::write(&part, &bytes[..100_000]).unwrap();
    curl(&["-C", "-", "-o", part.to_str().unwrap()]).await;
    assert!(std::fs::read(&part).unwrap() == bytes, "the resumed file differs");

    let head = curl(&["-r", "10-19", "-D", "-", "-o", "/dev/null"]).await.to_lowercase();
    assert!(head.starts_with("http/1.1 206"), "{head}");
    assert!(head.contains(&format!("content-range: bytes 10-19/{}", bytes.len())), "{head}");
    let tag = format!("\"{}\"", stored["sha256"].as_str().unwrap());
    assert!(head.contains(&format!("etag: {tag}")), "{head}");
    let code = async |range: &str, tag: &str| {
        let condition = format!("If-Range: {tag}");
        curl(&["-r", range, "-H", &condition, "-o", "/dev/null", "-w", "%{http_code} %{size_download}"]).await
    };
    assert_eq!(code("0-9", &tag).await, "206 10");
    assert_eq!(
        code("0-9", "\"another\"").await,
        format!("200 {}", bytes.len()),
        "a part of another file is of no use"
    );
    let beyond = curl(&["-r", "99999999-", "-o", "/dev/null", "-w", "%{http_code}"]).await;
    assert_eq!(beyond, "416");
}

#[tokio::test]
async fn strangers_and_wrong_names_get_no_bundle() {
    let gateway = Gateway::start().await;
    let node = Node::start_board(&gateway, "a", Fate::Deaf).await;
    let bytes = std::fs::read(bundle(gateway.dir.path(), "0.2.0")).unwrap();
    let stored: serde_json::Value = put(&gateway, bytes).await.json().await.unwrap();
    let base = format!("https://{}/v1/bundles", gateway.nodes);
    let sha256 = stored["sha256"].as_str().unwrap();
    let nobody = Client::builder().no_proxy().danger_accept_invalid_certs(true).build().unwrap();
    assert_eq!(nobody.get(format!("{base}/{sha256}")).send().await.unwrap().status(), 401);
    let own = node.certificate.https();
    assert_eq!(own.get(format!("{base}/{sha256}")).send().await.unwrap().status(), 200);
    for wrong in
        ["0".repeat(64), format!("{sha256}.json"), "..%2Foperator.token".to_owned(), sha256.to_uppercase()]
    {
        assert_eq!(own.get(format!("{base}/{wrong}")).send().await.unwrap().status(), 404, "{wrong}");
    }
}

#[tokio::test]
async fn the_operators_command_makes_and_shows_bundles_and_says_what_is_wrong_with_others() {
    let gateway = Gateway::start().await;
    let dir = gateway.dir.path();
    let image = bundle(dir, "0.2.0");
    let root = dir.join("package");
    std::fs::create_dir_all(root.join("DEBIAN")).unwrap();
    let control = "Package: headwater-agent\nVersion: 0.2.0-1\nArchitecture: arm64\nMaintainer: T <t@example.org>\nDescription: t\n";
    std::fs::write(root.join("DEBIAN/control"), control).unwrap();
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let build = ["--root-owner-group", "-b", root.to_str().unwrap(), &path("a.deb")];
    assert!(std::process::Command::new("dpkg-deb").args(build).output().unwrap().status.success());

    let (deb, key, cert, out) = (path("a.deb"), path("key.pem"), path("cert.pem"), path("a.hwb"));
    let made = gateway.headwater(&["bundle", &deb, "--key", &key, "--cert", &cert, "-o", &out]).await;
    assert!(made.status.success(), "{made:?}");
    let show = async |file: &str| {
        let output = gateway.headwater(&["bundle", "show", file]).await;
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        (output.status.code(), text.concat())
    };
    let packages = "packages, 0.2.0-1 for arm64\nheadwater-agent 0.2.0-1\nclaims to be signed by CN=signer\n";
    assert_eq!(show(&out).await, (Some(0), packages.to_owned()));
    let image = show(image.to_str().unwrap()).await;
    assert_eq!(
        image,
        (Some(0), "an image, 0.2.0 for board-x\nclaims to be signed by CN=signer\n".to_owned())
    );
    let (code, text) = show(&deb).await;
    assert_eq!(code, Some(5), "{text}");
    assert!(text.contains("neither a RAUC bundle nor a bundle of packages"), "{text}");
    let update = gateway.headwater(&["update", "all", &deb]).await;
    assert_eq!(update.status.code(), Some(5), "{update:?}");
    // A bundle for boards that are not there.
    let nobody = gateway.headwater(&["update", "all", &out]).await;
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("no node matches all"), "{nobody:?}");
}

#[tokio::test]
async fn who_is_refused_while_still_sending_sees_why_and_may_ask_again_on_the_same_connection() {
    let gateway = Gateway::start().await;
    let mut stream = TcpStream::connect(gateway.http).await.unwrap();
    let body = vec![0; 1 << 20];
    let head = format!("PUT /api/v1/bundles HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 401 "));
    stream.write_all(&body).await.unwrap();
    stream.write_all(b"GET /api/v1/bundles HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200 "));
}

/// One answer, by its length.
async fn answer(stream: &mut TcpStream) -> String {
    let mut stream = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let from = head.len();
        let read = timeout(LONG, stream.read_line(&mut head)).await.unwrap().unwrap();
        assert_ne!(read, 0, "closed after {head:?}");
        if let Some(value) = head[from..].to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    timeout(LONG, stream.read_exact(&mut vec![0; length])).await.unwrap().unwrap();
    head
}
