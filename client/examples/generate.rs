//! Draws one picture and writes it: `cargo run --example generate -- "a cat on a blue background"`.
//!
//! `ATELIER_ENDPOINTS` names any of the cluster's peers, separated by commas; the rest is found.

use atelier_client::{Client, Options, Submission, TextToImage};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let prompt = std::env::args().nth(1).unwrap_or("a cat on a blue background".to_owned());
    let client = Client::connect(endpoints(), Options::default())?;

    let wanted = Submission::new(TextToImage::new(prompt));
    let drawn = client
        .generate(&wanted, |event| match &event.progress {
            Some(at) => eprintln!("{} {} of {}", at.stage.word(), at.step, at.steps),
            None => eprintln!("{}", event.job.phase),
        })
        .await?;

    std::fs::write("picture.png", &drawn.images[0].bytes)?;
    println!("picture.png, drawn by peer {}", drawn.job.node.unwrap_or_default());
    Ok(())
}

fn endpoints() -> Vec<String> {
    let given = std::env::var("ATELIER_ENDPOINTS").unwrap_or("http://127.0.0.1:7861".to_owned());
    given.split(',').map(str::to_owned).collect()
}
