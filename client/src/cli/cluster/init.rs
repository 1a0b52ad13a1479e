//! `atelier cluster init`: a token, and a configuration for each peer.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::cli::Context;
use crate::cli::address::Place;
use crate::cli::failure::{Exit, Failure};
use crate::cli::json::{Body, Document, InitView};
use crate::cli::output::note;

/// Bytes of chance in a token; printed as twice as many hexadecimal digits.
const TOKEN_BYTES: usize = 32;

pub(super) fn run(
    context: &Context,
    name: &str,
    peers: &[String],
    directory: &Path,
    accept_two_voters: bool,
) -> Result<Exit, Failure> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        let what = format!("{name:?} is no name of a cluster");
        return Err(
            Failure::new(Exit::Usage, what).hint("expected 1 to 64 letters, digits, `-` or `_`")
        );
    }
    if peers.len() == 2 && !accept_two_voters {
        return Err(Failure::new(Exit::Conflict, "there would be two voters")
            .why(["two tolerate no failure, and one of two fails twice as often".to_owned()])
            .hint("have one or three, or say --accept-two-voters"));
    }
    check_places(peers)?;
    let token = token()?;
    std::fs::create_dir_all(directory).map_err(|error| {
        let what = format!("cannot make the directory {}: {error}", directory.display());
        Failure::new(Exit::Failed, what).hint("choose another --directory")
    })?;
    let paths: Vec<_> =
        (1..=peers.len()).map(|node| directory.join(format!("peer-{node}.toml"))).collect();
    // Before the first is written, since half a cluster's files are of no use.
    if let Some(path) = paths.iter().find(|path| path.symlink_metadata().is_ok()) {
        return Err(not_written(path, &"it exists already"));
    }
    let mut files = Vec::new();
    for (node, path) in (1..).zip(&paths) {
        let text = configuration(name, &token, node, peers);
        // The token lets whoever reads it into the cluster.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let mut file = file.map_err(|error| not_written(path, &error))?;
        file.write_all(text.as_bytes()).map_err(|error| not_written(path, &error))?;
        files.push(path.display().to_string());
    }
    if context.output.is_json() {
        let view = InitView { cluster: name.to_owned(), token, files };
        context.output.document(&Document::from(Body::Init(view)))?;
        return Ok(Exit::Ok);
    }
    context.output.line(&token)?;
    note(&format!("wrote {}", files.join(", ")));
    note("set engine.model in each, then on each machine: atelierd start --config peer-N.toml");
    note(&format!(
        "later peers: atelierd start --join {} --token TOKEN --data DIR --model DIR …",
        peers[0]
    ));
    Ok(Exit::Ok)
}

fn not_written(path: &Path, why: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Conflict, format!("{} was not written: {why}", path.display()))
        .hint("choose another --directory; nothing is ever overwritten")
}

/// Refuses peers that would be one, or would take one another's port: each serves HTTP beside gRPC.
fn check_places(peers: &[String]) -> Result<(), Failure> {
    let places: Vec<_> = peers.iter().map(|address| Place::of(address)).collect();
    for (second, one) in places.iter().enumerate() {
        for (first, other) in places[..second].iter().enumerate() {
            let (Some(one), Some(other)) = (one, other) else { continue };
            if one.host != other.host {
                continue;
            }
            let both = format!(
                "peer {} at {} and peer {} at {}",
                first + 1,
                peers[first],
                second + 1,
                peers[second]
            );
            if one.port == other.port {
                return Err(Failure::new(Exit::Usage, format!("{both} are the same peer"))
                    .hint("name each peer once"));
            }
            if http_port(one.port) == other.port || http_port(other.port) == one.port {
                let what = format!("{both} need the same port");
                return Err(Failure::new(Exit::Usage, what)
                    .why(["each peer serves HTTP on the port below that of gRPC".to_owned()])
                    .hint("leave a port between them, as 7861 and 7871 do"));
            }
        }
    }
    Ok(())
}

/// HTTP goes below gRPC, as in the daemon's defaults.
const fn http_port(grpc: u16) -> u16 {
    if grpc > 1 { grpc - 1 } else { grpc + 1 }
}

fn token() -> Result<String, Failure> {
    let mut chance = [0; TOKEN_BYTES];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut chance)?;
    Ok(chance.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn configuration(name: &str, token: &str, node: usize, peers: &[String]) -> String {
    let own = &peers[node - 1];
    let members = (1..).zip(peers);
    let members = members.map(|(id, address)| format!("  {{ id = {id}, address = {address:?} }},"));
    let port = own.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok()).unwrap_or(7861);
    let loopback = own.contains("//127.") || own.contains("//[::1]") || own.contains("//localhost");
    let host = if loopback { "127.0.0.1" } else { "0.0.0.0" };
    let http = http_port(port);
    format!(
        "# `atelierd start --print-config` explains every key.\n\
         node = {node}\ncluster = {name:?}\n\
         # Whoever has it may join: keep it secret, and the same on every peer.\n\
         cluster_token = {token:?}\n\
         data = \"atelier-data-{node}\"\n\
         peers = [\n{}\n]\n\n\
         [listen]\ngrpc = \"{host}:{port}\"\nhttp = \"{host}:{http}\"\nadvertise = {own:?}\n\n\
         [engine]\n# A model directory in the diffusers layout; enabled = false for a peer that only votes.\n\
         model = \"\"\n",
        members.collect::<Vec<_>>().join("\n"),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_and_are_long() {
        let (one, other) = (token().unwrap(), token().unwrap());
        assert_eq!((one.len(), other.len()), (64, 64));
        assert_ne!(one, other);
    }

    #[test]
    fn a_configuration_names_every_peer_and_listens_on_its_own_port() {
        let peers = ["http://127.0.0.1:7861".to_owned(), "http://peer-2:7871".to_owned()];
        let first = configuration("c", "t", 1, &peers);
        assert!(first.contains("grpc = \"127.0.0.1:7861\"\nhttp = \"127.0.0.1:7860\""), "{first}");
        let second = configuration("c", "t", 2, &peers);
        assert!(second.contains("grpc = \"0.0.0.0:7871\""), "{second}");
        for address in &peers {
            assert!(first.contains(address) && second.contains(address));
        }
        let parsed: toml::Table = second.parse().unwrap();
        assert_eq!(parsed["node"].as_integer(), Some(2));
    }
}
