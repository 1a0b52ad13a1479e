//! Compiles the contracts with protox, so that no `protoc` is needed.

use prost::Message;

const FILES: [&str; 5] = [
    "client/v1/client.proto",
    "engine/v1/engine.proto",
    "peer/v1/entry.proto",
    "peer/v1/peer.proto",
    "peer/v1/raft.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    // For gRPC reflection: what the peer tells `grpcurl` of its services.
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").btree_map(".").compile_fds(descriptors)?;
    Ok(())
}
