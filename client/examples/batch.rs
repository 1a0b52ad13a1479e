//! Draws many pictures at once: every job is submitted, then each is waited for.
//!
//! A client is cheap to clone and all clones share their connections, so that calls run side by
//! side. Each job has its own end: one that fails says why, and the others go on.

use atelier_client::{Client, Options, Submission, TextToImage};
use futures_util::future::join_all;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::connect(endpoints(), Options::default())?;

    let wanted = (0..8).map(|seed| {
        let picture = TextToImage { seed, ..TextToImage::new("a cat on a blue background") };
        // The caller's own key: running this twice draws once.
        let idempotency_key = format!("example-batch-{seed}");
        Submission { idempotency_key, ..Submission::new(picture) }
    });
    let wanted: Vec<Submission> = wanted.collect();

    let drawing = wanted.iter().map(|one| client.generate(one, |_| ()));
    for (number, drawn) in join_all(drawing).await.into_iter().enumerate() {
        match drawn {
            Ok(drawn) => {
                let file = format!("batch-{number}.png");
                std::fs::write(&file, &drawn.images[0].bytes)?;
                println!("{file}, by peer {}", drawn.job.node.unwrap_or_default());
            }
            Err(error) => eprintln!("picture {number}: {error}"),
        }
    }
    Ok(())
}

fn endpoints() -> Vec<String> {
    let given = std::env::var("ATELIER_ENDPOINTS").unwrap_or("http://127.0.0.1:7861".to_owned());
    given.split(',').map(str::to_owned).collect()
}
