//! Generates Rust from the API's protobuf file, without protoc.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=proto/api.proto");
    let files = protox::compile(["api.proto"], ["proto"]).unwrap_or_else(|e| panic!("proto/api.proto: {e}"));
    tonic_prost_build::configure()
        .build_transport(false)
        .compile_fds(files)
        .unwrap_or_else(|e| panic!("proto/api.proto: {e}"));
}
