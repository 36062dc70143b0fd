//! With a device: what the values do, on two queue pairs of one port. Where there is none, what is said about it.
//!
//! The tests that need a device are ignored: `make test-rdma` runs them in a guest that has one.

use dmrpc_rdma_sys::raw::*;
use dmrpc_rdma_sys::*;
use std::sync::Arc;
use std::time::{Duration, Instant};

const TIMING: Timing = Timing { timeout: 14, retries: 3 };

/// Two connected pairs, `there` with memory that `here` may reach.
struct Rig {
    here: End,
    there: End,
    region: MemoryRegion,
}

struct End {
    pair: QueuePair,
    queue: CompletionQueue,
    domain: ProtectionDomain,
}

fn memory(domain: &ProtectionDomain, len: usize, access: Access) -> MemoryRegion {
    let owner: Arc<Vec<u64>> = Arc::new(vec![0; len / 8]);
    let start = owner.as_ptr().cast_mut().cast();
    // SAFETY: the owner's memory; the tests make no references to it.
    unsafe { MemoryRegion::new(domain, start, len, access, owner) }.unwrap()
}

fn rig(access: Access) -> Rig {
    let (device, port) = Device::open(&Selection::default()).unwrap();
    let end = || {
        let domain = ProtectionDomain::new(&device).unwrap();
        let queue = CompletionQueue::new(&device, 64).unwrap();
        let options = QueuePairOptions { sends: 16, receives: 16, inline_bytes: 64 };
        let pair = QueuePair::new(&domain, (&queue, &queue), options).unwrap();
        End { pair, queue, domain }
    };
    let (here, there) = (end(), end());
    let peer = |of: &End| Peer {
        gid: port.gid,
        number: of.pair.number(),
        first_packet: 7,
        mtu: port.mtu,
        reads_answered: 4,
        reads_asked: 4,
    };
    here.pair.connect(&port, 7, &peer(&there), TIMING, |_| Ok(())).unwrap();
    there.pair.connect(&port, 7, &peer(&here), TIMING, |_| Ok(())).unwrap();
    let region = memory(&there.domain, 8192, access);
    Rig { here, there, region }
}

impl End {
    /// Posts a one-sided request of `len` bytes.
    fn reach(&self, opcode: u32, local: &MemoryRegion, len: u32, remote: u64, key: u32) {
        let mut piece = ibv_sge { addr: local.start() as u64, length: len, lkey: local.local_key() };
        let mut work = ibv_send_wr::new(opcode, 1);
        work.sg_list = &mut piece;
        work.num_sge = 1;
        work.wr.rdma = ibv_send_wr_rdma { remote_addr: remote, rkey: key };
        // SAFETY: the region outlives the completion, which is waited for.
        unsafe { self.pair.post_send(&mut work) }.unwrap();
    }

    /// The status of the next completion.
    fn status(&self) -> u32 {
        let until = Instant::now() + Duration::from_secs(20);
        let mut completions = [ibv_wc::default(); 1];
        while self.queue.poll(&mut completions).unwrap() == 0 {
            assert!(Instant::now() < until, "nothing completes");
            std::thread::yield_now();
        }
        completions[0].status
    }
}

#[test]
fn what_is_missing_is_named() {
    match Device::open(&Selection::default()) {
        Ok((device, port)) => assert!(!device.name().is_empty() && port.number > 0),
        Err(error) => {
            let text = error.to_string();
            let names = ["libibverbs", "module", "device", "port", "GID"];
            assert!(names.iter().any(|name| text.contains(name)), "{text}");
        }
    }
}

#[test]
#[ignore = "needs an RDMA device: make test-rdma"]
fn a_device_or_gid_that_is_not_there_is_named() {
    let wrong = Selection { device: Some("none0".to_owned()), ..Selection::default() };
    assert!(matches!(Device::open(&wrong), Err(RdmaError::NoSuchDevice { wanted, .. }) if wanted == "none0"));
    let wrong = Selection { gid_index: Some(250), ..Selection::default() };
    let error = Device::open(&wrong).unwrap_err();
    assert!(matches!(error, RdmaError::NoSuchGid { wanted: 250, .. }), "{error}");
    assert!(error.to_string().contains("::ffff:127.0.0.1"), "what there is: {error}");
    let near = Selection { near: Some("127.0.0.1".parse().unwrap()), ..Selection::default() };
    let (_, port) = Device::open(&near).unwrap();
    assert!(port.gid.is_ipv4() && port.gid == Gid::of("127.0.0.1".parse().unwrap()), "{port:?}");
    let chosen = Selection { gid_index: Some(port.gid_index), ..Selection::default() };
    assert_eq!(Device::open(&chosen).unwrap().1.gid_index, port.gid_index);
}

#[test]
#[ignore = "needs an RDMA device: make test-rdma"]
fn memory_is_read_and_written() {
    let Rig { here, there: _there, region } = rig(Access::RemoteWrite);
    let local = memory(&here.domain, 4096, Access::Local);
    // SAFETY: nobody else has it.
    unsafe { local.start().cast::<[u8; 4]>().write(*b"word") };
    here.reach(IBV_WR_RDMA_WRITE, &local, 4096, region.start() as u64 + 4096, region.remote_key());
    assert_eq!(here.status(), IBV_WC_SUCCESS);
    // SAFETY: the write is complete.
    assert_eq!(unsafe { region.start().add(4096).cast::<[u8; 4]>().read_volatile() }, *b"word");
    // It is registered for writing alone.
    here.reach(IBV_WR_RDMA_READ, &local, 8, region.start() as u64, region.remote_key());
    assert_eq!(here.status(), IBV_WC_REM_ACCESS_ERR);
}

#[test]
#[ignore = "needs an RDMA device: make test-rdma"]
fn what_is_out_of_range_or_deregistered_or_of_another_domain_is_refused() {
    let Rig { here, there: _there, region } = rig(Access::RemoteRead);
    let local = memory(&here.domain, 4096, Access::Local);
    here.reach(IBV_WR_RDMA_READ, &local, 4096, region.start() as u64, region.remote_key());
    assert_eq!(here.status(), IBV_WC_SUCCESS);
    here.reach(IBV_WR_RDMA_READ, &local, 4096, region.start() as u64 + 8000, region.remote_key());
    assert_eq!(here.status(), IBV_WC_REM_ACCESS_ERR);

    let Rig { here, there: _there, region } = rig(Access::RemoteRead);
    let local = memory(&here.domain, 4096, Access::Local);
    let (start, key) = (region.start() as u64, region.remote_key());
    drop(region);
    here.reach(IBV_WR_RDMA_READ, &local, 8, start, key);
    assert_eq!(here.status(), IBV_WC_REM_ACCESS_ERR);

    let Rig { here, there, region: _region } = rig(Access::RemoteRead);
    let other = memory(&ProtectionDomain::new(there.domain.device()).unwrap(), 4096, Access::RemoteRead);
    let local = memory(&here.domain, 4096, Access::Local);
    here.reach(IBV_WR_RDMA_READ, &local, 8, other.start() as u64, other.remote_key());
    assert_eq!(here.status(), IBV_WC_REM_ACCESS_ERR);
}

#[test]
#[ignore = "needs an RDMA device: make test-rdma"]
fn a_failed_pair_refuses_its_peer() {
    let Rig { here, there, region } = rig(Access::RemoteWrite);
    let local = memory(&here.domain, 4096, Access::Local);
    there.pair.fail().unwrap();
    here.reach(IBV_WR_RDMA_WRITE, &local, 8, region.start() as u64, region.remote_key());
    assert_ne!(here.status(), IBV_WC_SUCCESS);
}

#[test]
#[ignore = "needs an RDMA device: make test-rdma"]
fn completions_wake() {
    let Rig { here, there, region: slots } = rig(Access::Local);
    let mut piece = ibv_sge { addr: slots.start() as u64, length: 64, lkey: slots.local_key() };
    let mut receive = ibv_recv_wr { wr_id: 9, next: std::ptr::null_mut(), sg_list: &mut piece, num_sge: 1 };
    // SAFETY: the slots outlive the pair's use.
    unsafe { there.pair.post_receive(&mut receive) }.unwrap();
    let (here, received) = (here.pair, there.queue);
    received.arm().unwrap();
    let mut hello = *b"hello";
    let mut piece = ibv_sge { addr: hello.as_mut_ptr() as u64, length: 5, lkey: 0 };
    let mut work = ibv_send_wr::new(IBV_WR_SEND, 1);
    work.send_flags |= IBV_SEND_INLINE;
    work.sg_list = &mut piece;
    work.num_sge = 1;
    assert!(here.inline_bytes() >= 5);
    // SAFETY: inline data is copied at once.
    unsafe { here.post_send(&mut work) }.unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while !received.take_events() {
        assert!(Instant::now() < until, "nobody is woken");
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut completions = [ibv_wc::default(); 1];
    assert_eq!(received.poll(&mut completions).unwrap(), 1);
    assert_eq!((completions[0].wr_id, completions[0].byte_len, completions[0].status), (9, 5, IBV_WC_SUCCESS));
}
