//! A store within TLS: who gets in, what it sees, and that its session outlives its links.

mod rig;

use dmrpc_memnode::{Node, NodeConfig};
use dmrpc_objstore::{Store, StoreError, block_on};
use dmrpc_test_authority::Authority;
use rig::proxy::Proxy;
use rig::{pattern, pool};

/// A node for those who have a certificate.
struct Guarded {
    authority: Authority,
    node: Node,
    /// Where it is, without its scheme.
    place: String,
}

fn guarded() -> Guarded {
    let authority = Authority::new();
    let files = format!("{}&{}", authority.options(), authority.issue("node", &["127.0.0.1"]).options());
    let listen = vec![format!("tls://127.0.0.1:0?{files}").parse().expect("an address")];
    let node = Node::start(NodeConfig { listen, ..pool(64 << 20) }).expect("a node starts");
    let place = node.addresses()[0].to_string().strip_prefix("tls://").expect("within TLS").to_owned();
    assert!(!place.contains('?'), "its files are its own affair: {place}");
    Guarded { authority, node, place }
}

impl Guarded {
    fn client(&self) -> String {
        format!("?{}&{}", self.authority.options(), self.authority.issue("client", &["client"]).options())
    }
}

#[test]
fn objects_within_tls() {
    let guarded = guarded();
    let url = format!("tls://{}{}", guarded.place, guarded.client());
    block_on(async {
        let (store, other) = (Store::connect(&url).await.unwrap(), Store::connect(&url).await.unwrap());
        for len in [5000, 300_000, 5_000_000] {
            let bytes = pattern(len, 7);
            let object = store.put(&bytes).await.unwrap();
            assert!(object.get().await.unwrap()[..] == bytes[..], "{len} bytes");
            let mut edit = object.edit().await.unwrap();
            edit.write(0, b"!").unwrap();
            let edited = edit.commit().await.unwrap();
            let granted = edited.grant(std::time::Duration::from_secs(60)).await.unwrap();
            assert_eq!(granted.url(), format!("tls://{}", guarded.place), "our files are not for others");
            let there = other.redeem(&granted).await.unwrap().get().await.unwrap();
            assert!(there[0] == b'!' && there[1..] == bytes[1..], "{len} bytes elsewhere");
        }
    });
    guarded.node.shutdown();
}

#[test]
fn who_does_not_get_in_is_told_why() {
    let guarded = guarded();
    let stranger = Authority::new();
    for (options, why) in [
        (format!("?{}", guarded.authority.options()), "asks for a certificate"),
        (
            format!("?{}&{}", guarded.authority.options(), stranger.issue("client", &["client"]).options()),
            "does not know the issuer",
        ),
        (format!("?{}", stranger.options()), "the certificate of the peer is not accepted"),
    ] {
        let error = block_on(Store::connect(&format!("tls://{}{options}", guarded.place))).unwrap_err();
        assert!(matches!(error, StoreError::NodeUnreachable { .. }), "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
    let error = block_on(Store::connect(&format!("tls://{}", guarded.place))).unwrap_err();
    assert!(matches!(&error, StoreError::Address { why, .. } if why.contains("ca=FILE")), "{error}");
    guarded.node.shutdown();
}

#[test]
fn a_session_outlives_its_links() {
    let guarded = guarded();
    let proxy = Proxy::new(&format!("tcp://{}", guarded.place));
    let url = proxy.url.replace("tcp://", "tls://") + &guarded.client();
    let store = block_on(Store::connect(&url)).unwrap();
    let kept = block_on(store.put(&pattern(70_000, 1))).unwrap();
    for round in 2..12 {
        let bytes = pattern(200_000, round);
        let object = std::thread::scope(|scope| {
            scope.spawn(|| proxy.cut());
            block_on(store.put(&bytes)).unwrap()
        });
        assert!(block_on(object.get()).unwrap()[..] == bytes[..], "round {round}");
    }
    assert!(block_on(kept.get()).unwrap()[..] == pattern(70_000, 1)[..]);
    assert!(proxy.connections() > 1, "it was cut");
    guarded.node.shutdown();
}
