//! Addresses as people and peers write them.

use crate::Target;
use dmrpc_fabric::address::Address;

pub(crate) const ADDRESS: Target = Target { name: "address", run: address, seeds };

/// What parses is shown as something that parses to the same.
fn address(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(address) = text.parse::<Address>() {
        let shown = address.to_string();
        assert_eq!(shown.parse::<Address>().expect("its own text"), address, "{text:?} became {shown:?}");
    }
}

fn seeds() -> Vec<Vec<u8>> {
    [
        "unix:///run/dmrpc/node.sock",
        "unix:///a%20b",
        "tcp://localhost:7070",
        "tcp://127.0.0.1:0",
        "tcp://[::1]:65535",
        "udp://localhost:7070",
        "dpdk://10.0.0.1:7070",
        "inproc://name",
    ]
    .map(|url| url.as_bytes().to_vec())
    .into()
}
