//! Submits a job, keeps its id, and follows it to its end.
//!
//! This is how a service does it that may be restarted meanwhile: the id is all it has to remember.
//! An outcome that nobody knows is no failure: the same submission again settles it.

use atelier_client::{Client, Error, Options, Submission, TextToImage};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::connect(endpoints(), Options::default())?;

    let wanted = Submission {
        tenant: "examples".to_owned(),
        priority: Some(7),
        ..Submission::new(TextToImage { seed: 7, ..TextToImage::new("a dog on a red background") })
    };
    let accepted = loop {
        match client.submit(&wanted).await {
            Ok(accepted) => break accepted,
            // It may be accepted or not. Under the same id it is one job, whatever happened.
            Err(Error::UnknownOutcome { .. }) => {}
            Err(Error::Full { message, retry_after }) => {
                eprintln!("{message}");
                tokio::time::sleep(retry_after.unwrap_or_default()).await;
            }
            Err(error) => return Err(error.into()),
        }
    };
    println!("job {}", accepted.job);

    // Goes on at another peer when this one dies, and tells nothing twice.
    let mut watch = client.watch(accepted.job);
    while let Some(event) = watch.next().await {
        let job = event?.job;
        match job.position {
            Some(position) => println!("{}, {position} in the queue", job.phase),
            None => println!("{}", job.phase),
        }
    }

    let job = client.job(accepted.job).await?;
    for (number, image) in client.fetch(&job).await?.iter().enumerate() {
        std::fs::write(format!("{}-{number}.png", job.job), &image.bytes)?;
    }
    Ok(())
}

fn endpoints() -> Vec<String> {
    let given = std::env::var("ATELIER_ENDPOINTS").unwrap_or("http://127.0.0.1:7861".to_owned());
    given.split(',').map(str::to_owned).collect()
}
