//! Grants as text.

use crate::Target;
use dmrpc_objstore::Granted;

pub(crate) const GRANT: Target = Target { name: "grant", run: grant, seeds };

/// What parses is shown as something that parses to the same.
fn grant(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(granted) = text.parse::<Granted>() {
        let shown = granted.to_string();
        assert_eq!(shown.to_lowercase(), text.to_lowercase());
        assert!(shown.parse::<Granted>().expect("its own text") == granted);
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let url: String = "unix:///run/dmrpc/node.sock".bytes().map(|byte| format!("{byte:02x}")).collect();
    let fixed: String = (0..65).map(|byte: u8| format!("{byte:02x}")).collect();
    // The range of a grant lies within its object: offset 1, length 2, size 3.
    let number = |n: u64| n.to_le_bytes().map(|byte| format!("{byte:02x}")).concat();
    let range = [number(1), number(2), number(3)].concat();
    let fixed = format!("{}{range}{}", &fixed[..48], &fixed[96..]);
    let seeds = [format!("dmrpc1-{fixed}{url}"), format!("dmrpc1-{fixed}")];
    assert!(seeds.iter().all(|seed| seed.parse::<Granted>().is_ok()), "a grant");
    seeds.map(String::into_bytes).into()
}
