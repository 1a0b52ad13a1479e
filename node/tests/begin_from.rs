//! Pictures that begin from another one, on real processes with the bundled model: near it by strength, untouched
//! where a mask says so, and the same bytes whoever draws them.

#![allow(clippy::unwrap_used)]

mod support;

use atelier_client::{Artifact, Client, Error, Guidance, Job, JobId, Source, Submission};
use atelier_diffusion::Image;
use std::time::Duration;
use support::{Cluster, Setup, denoising, picture, until};

const CAT: &str = "a cat on a blue background";
const DOG: &str = "a dog on a red background";
const SIDE: u32 = 128;
const STEPS: u32 = 8;
/// A half of a picture that is drawn anew differs from its source by more than this, in levels of 0..255.
const ANEW_MIN: f64 = 10.0;
/// One that is kept differs by less: the autoencoder has seen it.
const KEPT_MAX: f64 = 8.0;
/// For the feature level to rise in a new cluster.
const LEVEL_MAX: Duration = Duration::from_secs(20);

/// The mean distance of two pictures, over the pixels of a half.
fn apart(one: &Image, other: &Image, is_left: bool) -> f64 {
    assert_eq!((one.width, one.height), (other.width, other.height));
    let is_there = |at: usize| ((at as u32 / 3 % one.width) < one.width / 2) == is_left;
    let pairs = one.rgb.iter().zip(&other.rgb).enumerate().filter(|(at, _)| is_there(*at));
    let off: Vec<f64> = pairs.map(|(_, (a, b))| f64::from(a.abs_diff(*b))).collect();
    off.iter().sum::<f64>() / off.len() as f64
}

fn both(one: &Image, other: &Image) -> f64 {
    f64::midpoint(apart(one, other, true), apart(one, other, false))
}

/// A dog that begins from a picture.
fn dog(image: &Artifact, strength: f64, mask: Option<&Artifact>, steps: u32) -> Submission {
    let mut wanted = picture(DOG, 11, steps);
    let mask = mask.map(|mask| mask.digest.clone());
    wanted.parameters.source =
        Some(Source { strength: Some(strength), mask, ..Source::new(image) });
    wanted
}

async fn draw(client: &Client, wanted: &Submission) -> (Job, Image, Vec<u8>) {
    let mut drawn = client.generate(wanted, |_| ()).await.unwrap();
    let bytes = drawn.images.remove(0).bytes;
    (drawn.job, Image::from_png(&bytes).unwrap(), bytes.to_vec())
}

/// Waits until the cluster takes pictures: a level rises once every member was heard of.
async fn takes_pictures(client: &Client) {
    let risen = async {
        while client.status().await.unwrap().features < 4 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(LEVEL_MAX, risen).await.expect("the level rises by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_begins_from_another_one_by_strength_and_mask() {
    let cluster = Cluster::start(Setup::default());
    let client = cluster.client();
    takes_pictures(&client).await;
    let (_, cat, bytes) = draw(&client, &picture(CAT, 7, STEPS)).await;
    let source = client.put_artifact(bytes).await.unwrap();

    let (job, near, _) = draw(&client, &dog(&source, 0.05, None, STEPS)).await;
    let told = job.parameters.expect("they are told");
    assert_eq!((told.width, told.height), (SIDE, SIDE), "the source's own size");
    let (_, far, again) = draw(&client, &dog(&source, 0.9, None, STEPS)).await;
    let mut same = dog(&source, 0.5, None, STEPS);
    same.parameters.prompt = CAT.to_owned();
    let (_, same_words, _) = draw(&client, &same).await;
    let [same_words, near, far] = [same_words, near, far].map(|drawn| both(&cat, &drawn));
    println!(
        "off its source: {same_words:.1} by its own words, {near:.1} by 0.05 of others, {far:.1} by 0.9"
    );
    assert!(same_words < KEPT_MAX, "{same_words}");
    // The bundled model knows few pictures, so it is on its way to another one at once.
    assert!(near > KEPT_MAX && near + ANEW_MIN < far, "{near} and {far}");
    // The same job at another peer, whatever it drew meanwhile.
    let (_, _, same) = draw(&client, &dog(&source, 0.9, None, STEPS)).await;
    assert_eq!(again, same);

    let half = |at: u32| if at % SIDE < SIDE / 2 { [0; 3] } else { [255; 3] };
    let rgb = (0..SIDE * SIDE).flat_map(half).collect();
    let mask = Image { width: SIDE, height: SIDE, rgb }.to_png();
    let mask = client.put_artifact(mask).await.unwrap();
    let (_, masked, _) = draw(&client, &dog(&source, 1.0, Some(&mask), STEPS)).await;
    let (kept, anew) = (apart(&cat, &masked, true), apart(&cat, &masked, false));
    println!("masked: {kept:.1} off where it is kept, {anew:.1} where it is drawn anew");
    assert!(kept < KEPT_MAX && anew > ANEW_MIN, "{kept} and {anew}");

    let refused = client.put_artifact(&b"not a picture"[..]).await.expect_err("refused");
    assert!(matches!(refused, Error::Invalid { .. }), "{refused}");
    let unknown = Artifact { digest: "0".repeat(64), ..source };
    let refused = client.submit(&dog(&unknown, 0.5, None, STEPS)).await.expect_err("refused");
    assert!(matches!(refused, Error::NotFound { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_bytes_are_the_same_after_the_death_of_whoever_drew_it() {
    let mut cluster = Cluster::start(Setup::default());
    let client = cluster.client();
    takes_pictures(&client).await;
    let (_, _, bytes) = draw(&client, &picture(CAT, 7, STEPS)).await;
    let source = client.put_artifact(bytes).await.unwrap();
    let wanted = dog(&source, 0.8, None, 50);
    let (_, _, undisturbed) = draw(&client, &wanted).await;

    // The peer that took the picture may be the one that dies: another one has it as well.
    let again = Submission { job: JobId::generate(), ..wanted };
    let accepted = client.submit(&again).await.unwrap();
    let event = until(&client, accepted.job, |event| denoising(event, 25)).await;
    let worker = event.job.node.expect("somebody draws it");
    cluster.kill(worker);
    let finished = client.finish(accepted.job, |_| ()).await.unwrap();
    assert_ne!(finished.node, Some(worker), "another peer finished it");
    let drawn = client.fetch(&finished).await.unwrap().remove(0).bytes;
    assert_eq!(drawn.to_vec(), undisturbed);
}

#[tokio::test(flavor = "multi_thread")]
async fn guidance_leads_a_picture_away_from_a_text() {
    let cluster = Cluster::start(Setup::default());
    let client = cluster.client();
    takes_pictures(&client).await;
    let (_, plain, _) = draw(&client, &picture(CAT, 7, STEPS)).await;
    let mut wanted = picture(CAT, 7, STEPS);
    let negative_prompt = "a blue background".to_owned();
    wanted.parameters.guidance = Some(Guidance { scale: 2.0, negative_prompt });
    let (job, guided, _) = draw(&client, &wanted).await;
    assert_eq!(job.parameters.and_then(|told| told.guidance), wanted.parameters.guidance);
    assert!(both(&plain, &guided) > 1.0, "it is another picture");
    wanted.parameters.guidance.as_mut().unwrap().scale = 31.0;
    let wanted = Submission { job: JobId::generate(), ..wanted };
    let refused = client.submit(&wanted).await.expect_err("refused");
    assert!(refused.to_string().contains("at most 30"), "{refused}");
}
