//! Pictures of a stream beside its video: pushed, answered, kept and served.

use anyhow::{Context as _, Result, ensure};
use headwater_tests::fleet::Options;
use headwater_tests::{Fleet, media};

const LADDER: &str = r#"{"profiles":[
    {"name":"240p","width":426,"height":240,"bitrate":250000},
    {"name":"thumb","width":320,"height":180,"quality":10,"encoder":"JPEG"},
    {"name":"board","width":160,"height":90,"quality":12,"encoder":"JPEG","tiles":{"columns":2,"rows":1,"every":1000}}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_push_brings_pictures_and_the_newest_is_served_beside_the_playlists() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let fleet = Fleet::start(folder.path(), Options::nodes(&["north"])).await?;
    let mut newest = Vec::new();
    for i in 0..2u32 {
        let input = media::segment(folder.path(), i, "640x360", "30", 2.0)?;
        let answer = fleet.push("show", &format!("{i}.ts"), Some(LADDER), input).await?;
        let parts = answer.parts()?;
        let names: Vec<&str> = parts.iter().map(|part| part.filename.as_str()).collect();
        ensure!(
            names == [format!("240p_{i}.ts"), format!("thumb_{i}.jpg"), format!("board_{i}.jpg")],
            "{names:?}"
        );
        for (part, size) in parts.iter().skip(1).zip([(320, 180), (320, 90)]) {
            ensure!(
                part.content_type == format!("image/jpeg; name=\"{}\"", part.filename),
                "{}",
                part.content_type
            );
            let probe = media::probe_bytes(folder.path(), &part.filename, &part.data)?;
            ensure!(probe.codec == "mjpeg" && (probe.width, probe.height) == size, "{probe:?}");
        }
        newest = parts.into_iter().nth(1).context("no thumbnail")?.data;
    }
    let get = async |path: &str| fleet.client.get(format!("{}{path}", fleet.http)).send().await;
    let response = get("/stream/show/thumb.jpg").await?;
    ensure!(response.status() == 200 && response.headers()["content-type"] == "image/jpeg", "{response:?}");
    ensure!(response.bytes().await? == newest, "it is not the newest segment's");
    ensure!(get("/stream/show/thumb/0.jpg").await?.status() == 200);
    // A picture is no variant of a stream, and video is no picture.
    let (_, master) = fleet.text("/stream/show.m3u8").await?;
    ensure!(
        master.contains("show/240p.m3u8") && !master.contains("thumb") && !master.contains("board"),
        "{master}"
    );
    ensure!(get("/stream/show/thumb.m3u8").await?.status() == 404);
    ensure!(get("/stream/show/240p.jpg").await?.status() == 404);

    // The operator's command keeps them in their folders and plays the rest.
    let input = folder.path().join("in-0.ts");
    let out = folder.path().join("out");
    let ladder = "name=240p,size=426x240,bitrate=250k;name=thumb,size=320x180,quality=10,codec=jpeg";
    let (input, out_text) = (input.to_str().context("path")?, out.to_str().context("path")?);
    let pushed = fleet.headwater(&["push", input, "--out", out_text, "--ladder", ladder])?;
    ensure!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    let picture = media::probe(&out.join("thumb/0.jpg"))?;
    ensure!((picture.codec.as_str(), picture.width) == ("mjpeg", 320), "{picture:?}");
    ensure!(!out.join("thumb/index.m3u8").exists() && out.join("240p/index.m3u8").exists());
    ensure!(!std::fs::read_to_string(out.join("master.m3u8"))?.contains("thumb"));
    fleet.stop()
}
