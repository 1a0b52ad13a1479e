//! Previews on real processes: seen through a peer that does not draw, alike to the picture, and
//! without a trace in it.

#![allow(clippy::unwrap_used)]

mod support;

use atelier_client::{Client, Job, Options};
use atelier_diffusion::Image;
use support::{Cluster, Setup, patient, picture};

const PROMPT: &str = "a cat on a blue background";
const STEPS: u32 = 50;
/// From this step on a preview is judged: half of the noise is gone.
const LATE: u32 = STEPS / 2;
/// How far the mean colour of a late preview may be from the picture's, in levels of 0..255.
const MEAN_OFF_MAX: f64 = 32.0;
/// The same of a pixel from its block of the picture, in the mean over all.
const PIXEL_OFF_MAX: f64 = 24.0;

/// What one watch was shown: the step and the picture of each preview.
struct Shown {
    job: Job,
    previews: Vec<(u32, Image)>,
}

async fn watch(client: Client, id: atelier_client::JobId) -> Shown {
    let (mut watch, mut previews) = (client.watch(id), Vec::new());
    loop {
        let event = watch.next().await.expect("it ends with the job").expect("it goes on");
        if let Some(preview) = &event.preview {
            let step = event.progress.as_ref().expect("a preview is one of a step").step;
            previews.push((step, Image::from_png(&preview.png).expect("a PNG")));
        }
        if event.job.phase.is_terminal() {
            return Shown { job: event.job, previews };
        }
    }
}

/// A client of one peer, with previews or without.
fn client_of(cluster: &Cluster, id: u64, previews: bool) -> Client {
    let options = Options { learn_members: false, previews, ..patient() };
    Client::connect([cluster.address(id)], options).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_draw_shows_what_the_picture_will_be() {
    let cluster = Cluster::start(Setup::default());
    let wanted = picture(PROMPT, 7, STEPS);
    let asked = cluster.client().submit(&wanted).await.unwrap().job;
    // Who will draw it is not known before; so all are asked.
    let watches = cluster.ids().into_iter().map(|id| {
        let watch = watch(client_of(&cluster, id, true), asked);
        async move { (id, watch.await) }
    });
    let unasked = watch(client_of(&cluster, 1, false), asked);
    let (shown, unasked) = tokio::join!(futures_util::future::join_all(watches), unasked);
    assert!(unasked.previews.is_empty(), "nobody is sent what he did not ask for");

    let drawn = cluster.client().fetch(&unasked.job).await.unwrap().remove(0).bytes;
    let drawn = Image::from_png(&drawn).unwrap();
    for (id, shown) in &shown {
        assert_eq!(shown.job.artifacts, unasked.job.artifacts);
        println!("peer {id} of worker {:?}: {} previews", shown.job.node, shown.previews.len());
        let late = shown.previews.iter().filter(|(step, _)| *step >= LATE);
        let judged = late.map(|(step, preview)| judge(*step, preview, &drawn)).count();
        assert!(judged > 0, "peer {id} showed {} previews, none late", shown.previews.len());
    }
    let others = shown.iter().filter(|(id, shown)| shown.job.node != Some(*id));
    assert_eq!(others.count(), 2, "one of them drew it");

    // The same job again, with nobody looking.
    let again = picture(PROMPT, 7, STEPS);
    let again = cluster.client().generate(&again, |_| ()).await.unwrap();
    assert_eq!(again.job.artifacts, unasked.job.artifacts, "whoever looks changes nothing");
}

/// Compares a preview with the picture that it was one of.
fn judge(step: u32, preview: &Image, drawn: &Image) {
    let size = (preview.width, preview.height);
    assert_eq!(size, (drawn.width / 8, drawn.height / 8));
    let small = shrunk(drawn, 8);
    let off: Vec<f64> =
        small.iter().zip(&preview.rgb).map(|(drawn, shown)| drawn - f64::from(*shown)).collect();
    let count = off.len() as f64;
    let mean = [0, 1, 2].map(|c| off.iter().skip(c).step_by(3).sum::<f64>() / (count / 3.0));
    let mean = mean.map(f64::abs).into_iter().fold(0.0, f64::max);
    let pixel = off.iter().map(|off| off.abs()).sum::<f64>() / count;
    println!("step {step}: mean colour {mean:.1} off, pixels {pixel:.1}");
    assert!(mean <= MEAN_OFF_MAX, "step {step}: mean colour is {mean:.1} off");
    assert!(pixel <= PIXEL_OFF_MAX, "step {step}: pixels are {pixel:.1} off");
}

/// The means of a picture's blocks.
fn shrunk(image: &Image, block: u32) -> Vec<f64> {
    let (width, height) = (image.width / block, image.height / block);
    let mut means = vec![0.0; (width * height * 3) as usize];
    for (at, level) in image.rgb.iter().enumerate() {
        let (pixel, colour) = (at as u32 / 3, at % 3);
        let (x, y) = (pixel % image.width / block, pixel / image.width / block);
        means[((y * width + x) * 3) as usize + colour] += f64::from(*level);
    }
    means.iter().map(|sum| sum / f64::from(block * block)).collect()
}
