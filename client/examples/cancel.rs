//! Submits a job and takes it back.
//!
//! Cancelling is settled by the log: when the job has ended before, that is told as a conflict, and
//! its pictures are there.

use atelier_client::{Client, Error, Options, Submission, TextToImage};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::connect(endpoints(), Options::default())?;

    let long = TextToImage { steps: 50, ..TextToImage::new("a cat on a blue background") };
    let job = client.submit(&Submission::new(long)).await?.job;
    match client.cancel(job).await {
        Ok(job) => println!("job {} is {}", job.job, job.phase),
        Err(Error::Conflict { message, .. }) => println!("job {job} was faster: {message}"),
        // Whether it took effect is not known: look before asking again.
        Err(Error::UnknownChange { .. }) => {
            println!("job {job} is {}", client.job(job).await?.phase);
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn endpoints() -> Vec<String> {
    let given = std::env::var("ATELIER_ENDPOINTS").unwrap_or("http://127.0.0.1:7861".to_owned());
    given.split(',').map(str::to_owned).collect()
}
