//! The status page over real HTTP.

use headwater_gateway::page;
use reqwest::{Client, Response, StatusCode};

async fn serve() -> (String, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, page::router::<()>()).await.unwrap() });
    (base, server)
}

fn client() -> Client {
    Client::builder().no_proxy().build().unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).unwrap_or_else(|| panic!("no header {name}")).to_str().unwrap()
}

#[tokio::test]
async fn the_page_names_only_files_that_the_gateway_serves() {
    let (base, server) = serve().await;
    let http = client();
    let page = http.get(&base).send().await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    assert_eq!(header(&page, "content-type"), "text/html; charset=utf-8");
    let html = page.text().await.unwrap();
    let mut queue: Vec<String> =
        html.split('"').filter(|text| text.starts_with("assets/")).map(|text| text.to_owned()).collect();
    assert!(queue.len() >= 3, "{queue:?}");
    let mut seen = std::collections::BTreeSet::new();
    while let Some(path) = queue.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let answer = http.get(format!("{base}/{path}")).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let text = answer.text().await.unwrap();
        if path.ends_with(".js") && !path.contains("hls") {
            let imports = text
                .split('"')
                .filter_map(|part| part.strip_prefix("./").filter(|name| name.ends_with(".js")));
            queue.extend(imports.map(|name| format!("assets/{name}")));
            queue.extend(
                text.split('"').filter(|part| part.starts_with("assets/")).map(|part| part.to_owned()),
            );
        }
    }
    for needed in ["assets/player.js", "assets/hls.light.min.js", "assets/style.css"] {
        assert!(seen.contains(needed), "{needed} is not reached from the page");
    }
    server.abort();
}

#[tokio::test]
async fn nothing_foreign_and_nothing_inline_may_run() {
    let (base, server) = serve().await;
    let http = client();
    for path in ["/", "/assets/app.js", "/assets/style.css", "/assets/hls.light.min.js"] {
        let answer = http.get(format!("{base}{path}")).send().await.unwrap();
        let policy = header(&answer, "content-security-policy");
        assert!(policy.starts_with("default-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        assert_eq!(header(&answer, "x-content-type-options"), "nosniff");
    }
    let html = http.get(&base).send().await.unwrap().text().await.unwrap();
    assert!(!html.contains(" style=") && !html.contains(" onclick=") && !html.contains("<script>"));
    for name in ["app", "dom", "feed", "fleet", "updates", "streams", "player"] {
        let script = http.get(format!("{base}/assets/{name}.js")).send().await.unwrap().text().await.unwrap();
        for door in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!script.contains(door), "{name}.js uses {door}");
        }
    }
    server.abort();
}

#[tokio::test]
async fn a_file_the_browser_has_is_not_sent_again() {
    let (base, server) = serve().await;
    let http = client();
    let url = format!("{base}/assets/hls.light.min.js");
    let first = http.get(&url).send().await.unwrap();
    assert_eq!(header(&first, "content-type"), "text/javascript; charset=utf-8");
    assert_eq!(header(&first, "cache-control"), "no-cache");
    let tag = header(&first, "etag").to_owned();
    let again = http.get(&url).header("if-none-match", &tag).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    assert!(again.bytes().await.unwrap().is_empty());
    let other = http.get(format!("{base}/assets/app.js")).header("if-none-match", &tag).send().await.unwrap();
    assert_eq!(other.status(), StatusCode::OK);
    server.abort();
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let (base, server) = serve().await;
    for path in ["/assets/", "/assets/nothing.js", "/assets/..%2f..%2fCargo.toml"] {
        let answer = client().get(format!("{base}{path}")).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
    }
    server.abort();
}
