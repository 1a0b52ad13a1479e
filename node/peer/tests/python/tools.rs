//! The tools that people have, against the HTTP dialects of a real peer.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use atelier_peer::parameters::TextToImage;
use atelier_peer::ports::engine::{
    DrawRequest, Engine, EngineError, EngineEvent, EngineInfo, EngineState, EngineStep, Picture,
    Preview, StageTimes,
};
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{python_with, start};

/// What the script imports, and the packages that bring it.
pub(crate) const IMPORTS: &str = "import webuiapi, openai, tritonclient.http, PIL";
pub(crate) const PACKAGES: [&str; 3] = ["webuiapi", "openai", "tritonclient[http]"];
/// Steps of a picture, and what each takes of a prompt that speaks of something slow.
const STEPS: u32 = 4;
const SLOW: Duration = Duration::from_millis(500);

/// Draws one colour, by the seed, step after step.
struct Painter(watch::Sender<EngineState>);

impl Engine for Painter {
    fn draw(
        &self,
        request: DrawRequest,
        events: mpsc::Sender<EngineEvent>,
        stop: CancellationToken,
    ) -> BoxFuture<'_, Result<Vec<Picture>, EngineError>> {
        Box::pin(async move {
            let asked = TextToImage::decode(&request.kind, &request.parameters).unwrap();
            let pace = if asked.prompt.contains("slow") { SLOW } else { Duration::ZERO };
            let side = |side: u32| if side == 0 { 64 } else { side };
            let mut pictures = Vec::new();
            for image in 0..asked.images.max(1) {
                // What begins from a picture is that picture, so that the client can see that it came.
                let begun = asked.source.as_ref().map(|source| &request.pictures.0[&source.image]);
                let (width, height) = (side(asked.width), side(asked.height));
                let plain = || png(width, height, asked.seed as u8 + image as u8);
                let data = begun.map_or_else(plain, |begun| begun.to_vec());
                for step in 1..=STEPS {
                    tokio::select! {
                        () = stop.cancelled() => return Err(EngineError::Stopped),
                        () = tokio::time::sleep(pace) => {}
                    }
                    let preview = Preview::new(data.clone().into());
                    let (stage, spent) = ("denoise".to_owned(), StageTimes::default());
                    let step = EngineStep { stage, image, step, steps: STEPS, spent, preview };
                    let _ = events.try_send(EngineEvent::Step(step));
                }
                let media_type = "image/png".to_owned();
                pictures.push(Picture { image, media_type, data: data.into() });
            }
            Ok(pictures)
        })
    }

    fn ready(&self) -> watch::Receiver<EngineState> {
        self.0.subscribe()
    }
}

fn png(width: u32, height: u32, grey: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&vec![grey; (width * height) as usize]).unwrap();
    writer.finish().unwrap();
    bytes
}

pub(crate) fn painter() -> Arc<dyn Engine> {
    let info = EngineInfo {
        class: "painter".to_owned(),
        model: "grey@0123456789ab".to_owned(),
        default_width: 64,
        default_height: 64,
        default_steps: STEPS,
        guided: false,
        files: Arc::default(),
    };
    Arc::new(Painter(watch::Sender::new(EngineState::Ready(info))))
}

#[tokio::test(flavor = "multi_thread")]
async fn webuiapi_openai_tritonclient_and_curl_work_unmodified() {
    let Some(python) = python_with("venv-http", IMPORTS, &PACKAGES) else {
        println!("skipped: no python3 with {PACKAGES:?} here, and pip could not install them");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let (peer, _) = start(directory.path(), painter()).await;
    let address = peer.http_address().unwrap().to_string();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/tools.py");
    let ran = tokio::task::spawn_blocking(move || {
        Command::new(python).arg(script).arg(address).output().unwrap()
    });
    let output = ran.await.unwrap();
    peer.stop().await;
    let (told, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}{errors}");
    assert!(told.ends_with("done\n"), "{told}{errors}");
}
