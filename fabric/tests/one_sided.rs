//! Reads and writes of a peer's memory, beside messages. They need a device: `make test-rdma`.

use dmrpc_fabric::LinkOptions;
use dmrpc_fabric::blocking::{BlockingReceiver, BlockingSender};
use dmrpc_fabric::link::{Body, Incoming, Link, LinkError};
use dmrpc_fabric::listen::{Listener, connect};
use dmrpc_fabric::rdma::{Access, BULK_BYTES, Block, Ending, MemoryRegion, OneSided, RemoteRun, Step};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

fn soon() -> Instant {
    Instant::now() + LIMIT
}

/// A link, and memory at its acceptor that its connector may read or write.
struct Rig {
    here: Link,
    there: Link,
    region: MemoryRegion,
}

fn rig(len: usize, access: Access) -> Rig {
    let mut listener = Listener::bind(&"rdma://127.0.0.1:0".parse().unwrap(), &LinkOptions::default()).unwrap();
    let address = listener.address();
    let connecting = std::thread::spawn(move || connect(&address, &LinkOptions::default(), soon()).unwrap());
    let there = listener.accept(soon()).unwrap();
    let here = connecting.join().unwrap();
    let owner: Arc<Vec<u64>> = Arc::new(vec![0; len / 8]);
    let start = owner.as_ptr().cast_mut().cast();
    let registrar = there.receiver.one_sided().unwrap().registrar();
    // SAFETY: the owner's memory; the tests make no references to it while it is written.
    let region = unsafe { registrar.register(start, len, access, owner) }.unwrap();
    Rig { here, there, region }
}

impl Rig {
    fn one_sided(&self) -> OneSided {
        self.here.receiver.one_sided().unwrap()
    }

    fn step(&self, offset: u64, len: usize) -> Vec<Step> {
        let remote = RemoteRun { address: self.region.start() as u64 + offset, key: self.region.remote_key() };
        vec![Step { at: 0, len, remote, fenced: false }]
    }

    fn bytes(&self, offset: usize, len: usize) -> Vec<u8> {
        assert!(offset + len <= self.region.len());
        // SAFETY: within the region, and no write is under way.
        unsafe { std::slice::from_raw_parts(self.region.start().add(offset), len) }.to_vec()
    }
}

/// By the options of addresses: what there is, and what there is not.
#[test]
#[ignore = "needs an RDMA device: make test-rdma"]
fn the_device_and_gid_are_chosen_by_the_address() {
    let options = LinkOptions::default();
    let named = |url: &str, names: &str| {
        let error = Listener::bind(&url.parse().unwrap(), &options).err().expect("no such thing").to_string();
        assert!(error.contains(names), "{error}");
    };
    named("rdma://127.0.0.1:0?device=none0", "no RDMA device none0 here, only: rxe0");
    named("rdma://127.0.0.1:0?gid=255", "a GID to use at 255 of its table, only: ");
    named("rdma://127.0.0.1:0?device=rxe0&gid=255", "::ffff:127.0.0.1, rxe0/1)");

    let mut listener = Listener::bind(&"rdma://127.0.0.1:0?device=rxe0".parse().unwrap(), &options).unwrap();
    let address = listener.address().to_string();
    assert!(!address.contains('?'), "what others connect to: {address}");
    let wrong = connect(&format!("{address}?device=none0").parse().unwrap(), &options, soon());
    assert!(wrong.err().expect("no such device").to_string().contains("rxe0"));
    let right = format!("{address}?device=rxe0").parse().unwrap();
    let connecting = std::thread::spawn(move || connect(&right, &LinkOptions::default(), soon()).unwrap());
    listener.accept(soon()).unwrap();
    connecting.join().unwrap();
}

fn pattern(one_sided: &OneSided, len: usize, seed: u8) -> Arc<Block> {
    let mut block = one_sided.heap().unwrap().block(len).unwrap();
    block.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at as u8 ^ (at >> 8) as u8).wrapping_add(seed));
    Arc::new(block)
}

fn has_ended<T>(ending: &mut std::pin::Pin<&mut Ending<T>>) -> Option<Result<T, LinkError>> {
    match ending.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(ended) => Some(ended),
        Poll::Pending => None,
    }
}

fn end_of<T>(ending: Ending<T>) -> Result<T, LinkError> {
    let mut ending = pin!(ending);
    let until = soon();
    loop {
        if let Some(ended) = has_ended(&mut ending) {
            return ended;
        }
        assert!(Instant::now() < until, "it does not end");
        std::thread::yield_now();
    }
}

#[test]
#[ignore = "needs an RDMA device: make test-rdma"]
fn bytes_go_there_and_come_back() {
    let rig = rig(4 << 20, Access::RemoteWrite);
    let one_sided = rig.one_sided();
    for (seed, len) in [1, 4096, BULK_BYTES, BULK_BYTES + 1, 3 << 20].into_iter().enumerate() {
        let block = pattern(&one_sided, len, seed as u8);
        end_of(one_sided.write(block.clone(), rig.step(4096, len), ())).unwrap();
        assert!(rig.bytes(4096, len) == block[..], "{len} bytes written");
    }
    let back = self::rig(4 << 20, Access::RemoteRead);
    let one_sided = back.one_sided();
    for len in [1, BULK_BYTES, 3 << 20] {
        let block = one_sided.heap().unwrap().block(len).unwrap();
        let block = end_of(one_sided.read(block, back.step(8, len))).unwrap();
        assert!(back.bytes(8, len) == block[..], "{len} bytes read");
    }
}

/// A session's renewal is not to wait for what it writes.
#[test]
#[ignore = "needs an RDMA device: make test-rdma"]
fn a_message_overtakes_a_large_write() {
    const LEN: usize = 64 << 20;
    let rig = rig(LEN, Access::RemoteWrite);
    let one_sided = rig.one_sided();
    let block = pattern(&one_sided, LEN, 3);
    let mut ending = pin!(one_sided.write(block.clone(), rig.step(0, LEN), ()));
    let Rig { here, there, region } = rig;
    let mut sender = BlockingSender::new(here.sender);
    let mut receiver = BlockingReceiver::new(there.receiver);
    for round in 0..3u8 {
        sender.send(&[round], Body::new(), soon()).unwrap();
        assert!(matches!(receiver.recv(soon()).unwrap(), Incoming::Head { head, .. } if head == [round]));
        assert!(has_ended(&mut ending).is_none(), "message {round} came behind the write");
    }
    let until = soon();
    while has_ended(&mut ending).is_none() {
        assert!(Instant::now() < until, "it does not end");
        std::thread::yield_now();
    }
    // SAFETY: within the region, and the write has ended.
    assert!(unsafe { std::slice::from_raw_parts(region.start(), LEN) } == &block[..]);
}

/// What is written behind is in its place before the message that is sent after it.
#[test]
#[ignore = "needs an RDMA device: make test-rdma"]
fn a_message_does_not_overtake_what_was_written_before_it() {
    let Rig { here, there, region } = rig(1 << 20, Access::RemoteWrite);
    let one_sided = here.receiver.one_sided().unwrap();
    let mut sender = BlockingSender::new(here.sender);
    let mut receiver = BlockingReceiver::new(there.receiver);
    for round in 0..50u8 {
        // As large as may be: those that are larger are written, and then told of.
        let block = pattern(&one_sided, BULK_BYTES, round);
        let remote = RemoteRun { address: region.start() as u64, key: region.remote_key() };
        one_sided.write_behind(block.clone(), vec![Step { at: 0, len: BULK_BYTES, remote, fenced: false }]);
        sender.send(&[round], Body::new(), soon()).unwrap();
        assert!(matches!(receiver.recv(soon()).unwrap(), Incoming::Head { head, .. } if head == [round]));
        // SAFETY: within the region, and the next write is posted after this.
        assert!(unsafe { std::slice::from_raw_parts(region.start(), BULK_BYTES) } == &block[..], "round {round}");
    }
}

/// What was given to be kept is kept until the device is done, though nobody waits.
#[test]
#[ignore = "needs an RDMA device: make test-rdma"]
fn what_nobody_waits_for_is_kept_to_its_end() {
    struct Kept(Arc<AtomicBool>);
    impl Drop for Kept {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    const LEN: usize = 16 << 20;
    let rig = rig(LEN, Access::RemoteWrite);
    let one_sided = rig.one_sided();
    let block = pattern(&one_sided, LEN, 5);
    let gone = Arc::new(AtomicBool::new(false));
    drop(one_sided.write(block.clone(), rig.step(0, LEN), Kept(gone.clone())));
    assert!(!gone.load(Ordering::Acquire), "16 MiB are written before anybody looks");
    // Another that is waited for: the two are done in order.
    end_of(one_sided.write(block.clone(), rig.step(0, BULK_BYTES + 1), ())).unwrap();
    assert!(gone.load(Ordering::Acquire));
    assert!(rig.bytes(0, LEN) == block[..]);
}

/// A key that is none ends both queue pairs of the link, and whoever waits is told.
#[test]
#[ignore = "needs an RDMA device: make test-rdma"]
fn a_wrong_key_ends_the_link() {
    for len in [64, BULK_BYTES + 1] {
        let rig = rig(1 << 20, Access::RemoteRead);
        let one_sided = rig.one_sided();
        let block = pattern(&one_sided, len, 0);
        let error = end_of(one_sided.write(block, rig.step(0, len), ())).expect_err("it may be read only");
        assert!(error.to_string().contains("not registered"), "{error}");
        let error =
            end_of(one_sided.read(one_sided.heap().unwrap().block(8).unwrap(), rig.step(0, 8))).map(drop).unwrap_err();
        assert!(matches!(error, LinkError::Io { .. } | LinkError::Closed), "{error}");
        let mut receiver = BlockingReceiver::new(rig.here.receiver);
        assert!(receiver.recv(soon()).is_err());
    }
}
