//! Speaks TLS with peers of the own region, and shows a certificate of its own.
//!
//! `ATELIER_CA`, `ATELIER_CERTIFICATE` and `ATELIER_KEY` name PEM files: who vouches for the peers,
//! and who this is. One endpoint will do: the client learns the others from it.

use std::time::Duration;

use atelier_client::{Client, Options, Submission, TextToImage, Tls};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let read =
        |name: &str| Ok::<_, Box<dyn std::error::Error>>(std::fs::read(std::env::var(name)?)?);
    let tls = Tls {
        ca: read("ATELIER_CA")?,
        identity: Some((read("ATELIER_CERTIFICATE")?, read("ATELIER_KEY")?)),
        domain: None,
    };
    let options = Options {
        tls: Some(tls),
        // What any peer answers as well is asked of the nearest.
        region: Some("north".to_owned()),
        // A call gives up after this; its time is passed on, so that peers do not work in vain.
        deadline: Duration::from_secs(10),
        ..Options::default()
    };
    let client = Client::connect(["https://peer-1.example.org:7861"], options)?;

    let wanted = Submission::new(TextToImage::new("a cat on a blue background"));
    let drawn = client.generate(&wanted, |_| ()).await?;
    std::fs::write("cat.png", &drawn.images[0].bytes)?;
    println!("cat.png; known by now: {}", client.endpoints().join(", "));
    Ok(())
}
