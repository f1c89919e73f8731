//! Generates the Rust code of the .proto files without a protoc binary.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/store.proto");
    println!("cargo:rerun-if-changed=proto/tap.proto");
    let descriptors = protox::compile(["store.proto", "tap.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
