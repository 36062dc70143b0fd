//! What all registered memory does, and what mapped memory does besides. Tests name the invariants of `memory.rs`.

use dmrpc_fabric::memory::{Access, FakeMemory, InProcessMemory, Mapping, Mappings, Memory, MemoryError, Place};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::os::fd::OwnedFd;
use std::sync::Arc;

const PAGE: usize = 4096;
const LEN: usize = 4 * PAGE;

fn file(len: usize) -> OwnedFd {
    let file = memfd_create("memory", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, len as u64).unwrap();
    file
}

/// Region 7 of LEN bytes.
fn mapped(access: Access) -> Mappings {
    let mappings = Mappings::default();
    mappings.insert(7, Arc::new(Mapping::new(file(LEN), 0, LEN, access, true).unwrap()));
    mappings
}

fn everything_of(memory: &dyn Memory) {
    let at = |offset| Place { region: 7, offset };
    assert_eq!(memory.region_len(7).unwrap(), LEN as u64);
    memory.write_from(at(5), b"hello").unwrap();
    memory.write_from(at(LEN as u64 - 1), b"!").unwrap();
    memory.write_from(at(LEN as u64), b"").unwrap();
    let mut bytes = vec![0xff; LEN];
    memory.read_into(at(0), &mut bytes).unwrap();
    let mut expected = vec![0; LEN];
    expected[5..10].copy_from_slice(b"hello");
    expected[LEN - 1] = b'!';
    assert_eq!(bytes, expected);
    // Invariant 1.
    for (offset, len) in
        [(LEN as u64, 1), (LEN as u64 - 1, 2), (u64::MAX, 1), (u64::MAX, 0), (0, LEN + 1), (1 << 63, 1)]
    {
        let mut out = vec![1; len];
        assert!(
            matches!(memory.read_into(at(offset), &mut out), Err(MemoryError::OutOfRange { .. })),
            "{offset} {len}"
        );
        assert!(matches!(memory.write_from(at(offset), &out), Err(MemoryError::OutOfRange { .. })), "{offset} {len}");
        assert!(memory.as_ptr(at(offset), len as u64).is_none());
    }
    memory.read_into(at(0), &mut bytes).unwrap();
    assert_eq!(bytes, expected, "nothing was touched");
    let nowhere = Place { region: 8, offset: 0 };
    assert!(matches!(memory.region_len(8), Err(MemoryError::NoRegion(8))));
    assert!(matches!(memory.read_into(nowhere, &mut []), Err(MemoryError::NoRegion(8))));
    assert!(matches!(memory.write_from(nowhere, &[]), Err(MemoryError::NoRegion(8))));
    assert!(memory.as_ptr(nowhere, 0).is_none());
}

#[test]
fn all_memory_is_alike() {
    everything_of(&mapped(Access::Writable));
    everything_of(&mapped(Access::Private));
    let heap = InProcessMemory::default();
    heap.insert(7, LEN);
    everything_of(&heap);
    let heap = InProcessMemory::default();
    heap.insert(7, LEN);
    everything_of(&FakeMemory::new(heap, 1, 0));
}

#[test]
fn fake_memory_fails_as_its_seed_says() {
    let failures = |seed| {
        let fake = FakeMemory::new(mapped(Access::Writable), seed, 4);
        (0..200).map(|_| fake.write_from(Place { region: 7, offset: 0 }, b"x").is_err()).collect::<Vec<_>>()
    };
    assert_eq!(failures(1), failures(1));
    assert_ne!(failures(1), failures(2));
    assert!(failures(3).contains(&true) && failures(3).contains(&false));
}

#[test]
fn who_sees_what_is_written() {
    let file = file(LEN);
    let map = |access| Mapping::new(&file, 0, LEN, access, false).unwrap();
    let (shared, private, reader) = (map(Access::Writable), map(Access::Private), map(Access::ReadOnly));
    let first = |mapping: &Mapping| {
        let mut byte = [0];
        mapping.read_into(PAGE as u64, &mut byte).unwrap();
        byte[0]
    };
    shared.write_from(PAGE as u64, b"s").unwrap();
    assert_eq!((first(&shared), first(&private), first(&reader)), (b's', b's', b's'));
    private.write_from(PAGE as u64, b"p").unwrap();
    assert_eq!((first(&shared), first(&private), first(&reader)), (b's', b'p', b's'));
    assert!(matches!(reader.write_from(0, b"r"), Err(MemoryError::ReadOnly)));

    let page = PAGE as u64;
    for range in [page..page + 1, page + 1..2 * page, 1..page] {
        assert!(matches!(private.discard(range), Err(MemoryError::OutOfRange { .. })));
    }
    assert!(matches!(private.discard(page..page + LEN as u64), Err(MemoryError::OutOfRange { .. })));
    assert!(matches!(shared.discard(page..2 * page), Err(MemoryError::ReadOnly)));
    private.discard(0..page).unwrap();
    assert_eq!(first(&private), b'p', "another page");
    private.discard(page..2 * page).unwrap();
    assert_eq!(first(&private), b's', "the file again");
}

/// Invariant 3.
#[test]
fn a_mapping_does_not_reach_beyond_its_file() {
    let file = file(LEN);
    for (offset, len) in [(0, LEN + PAGE), (PAGE as u64, LEN), (u64::MAX - 4095, PAGE)] {
        let made = Mapping::new(&file, offset, len, Access::ReadOnly, false);
        assert!(matches!(made, Err(MemoryError::TooShort { .. })), "{offset} {len}");
    }
    assert!(matches!(Mapping::new(&file, 1, PAGE, Access::ReadOnly, false), Err(MemoryError::Io { .. })));
    assert!(matches!(Mapping::new(&file, 0, 0, Access::ReadOnly, false), Err(MemoryError::Io { .. })));
    assert_eq!(Mapping::new(&file, PAGE as u64, PAGE, Access::ReadOnly, true).unwrap().len(), PAGE);
}
