//! `dmrpc-test-authority FOLDER`: certificates for tests that are not in Rust: `ca.pem`, and for this host `host.pem` with `host.key`.
#![forbid(unsafe_code)]

fn main() -> Result<(), &'static str> {
    let folder = std::env::args_os().nth(1).ok_or("which folder?")?;
    dmrpc_test_authority::Authority::at(folder.as_ref()).issue("host", &["127.0.0.1", "localhost"]);
    Ok(())
}
