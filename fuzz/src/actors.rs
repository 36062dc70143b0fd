//! What systems of actors say to each other. The first eight bytes of an input are the length of the body that comes with it.

use crate::Target;
use dmrpc_actors::fuzz;

pub(crate) const ACTORS: Target = Target { name: "actors", run: actors, seeds };

fn actors(data: &[u8]) {
    if let Some((body_len, head)) = data.split_first_chunk() {
        fuzz::head(head, u64::from_le_bytes(*body_len));
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let heads = fuzz::heads();
    assert!(heads.iter().all(|(head, body_len)| fuzz::head(head, *body_len)), "its own encoding");
    heads.into_iter().map(|(head, body_len)| [&body_len.to_le_bytes()[..], &head].concat()).collect()
}
