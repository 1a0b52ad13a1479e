//! Compiles the contracts with protox, so that no `protoc` is needed.

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
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
