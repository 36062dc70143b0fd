//! References in payloads, without a memory node.

use dmrpc_objstore::{Borrows, Encoded, Loans, ObjectRef, StoreError, block_on, with_borrower, with_lender};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Serialize, Deserialize)]
struct Message {
    name: String,
    photo: ObjectRef,
    more: Vec<ObjectRef<[f32]>>,
}

fn message() -> Message {
    let floats = ObjectRef::inline([0; 32]).cast::<[f32]>().expect("eight floats");
    Message { name: "a".into(), photo: ObjectRef::inline(b"pixels"), more: vec![floats.clone(), floats] }
}

fn check<S: std::fmt::Debug, D: std::fmt::Debug>(
    serialize: impl FnOnce(&Message) -> Result<Vec<u8>, S>,
    deserialize: impl FnOnce(&[u8]) -> Result<Message, D>,
) {
    let (payload, lending) = with_lender(&Loans::new(Duration::ZERO), || serialize(&message()));
    assert_eq!(lending.count(), 3);
    let payload = payload.expect("references are lent");
    let message = with_borrower(&Borrows::new(|| {}), lending.table(), || deserialize(&payload));
    let message = message.expect("a good table").expect("a good payload");
    assert_eq!((&message.name[..], &*block_on(message.photo.get()).unwrap()), ("a", &b"pixels"[..]));
    assert_eq!((message.more.len(), message.more[1].len()), (2, 8));
}

#[test]
fn references_travel_in_every_codec() {
    check(postcard::to_stdvec, |payload| postcard::from_bytes(payload));
    check(rmp_serde::to_vec_named, |payload| rmp_serde::from_slice(payload));
}

#[test]
fn in_messagepack_a_reference_is_an_extension() {
    let (payload, _lending) =
        with_lender(&Loans::new(Duration::ZERO), || rmp_serde::to_vec_named(&ObjectRef::inline(b"x")));
    assert_eq!(payload.unwrap(), [0xd6, 1, 0, 0, 0, 0]);
}

#[test]
fn outside_a_message_the_error_names_grants() {
    let error = postcard::to_stdvec(&message()).map(drop).expect_err("no lender");
    let error = match rmp_serde::to_vec(&message()) {
        Err(named) => named.to_string(),
        Ok(_) => error.to_string(),
    };
    assert!(error.contains("grant()"), "{error}");
    assert!(postcard::from_bytes::<ObjectRef>(&[1, 4, 0, 0, 0, 0]).is_err());
}

#[test]
fn a_reference_that_did_not_come_along_is_refused() {
    let borrows = Borrows::new(|| {});
    let result = with_borrower(&borrows, &[], || postcard::from_bytes::<ObjectRef>(&[1, 4, 0, 0, 0, 0]));
    assert!(result.expect("an empty table").is_err());
    let result = with_borrower(&borrows, &[7; 70], || ());
    assert!(matches!(result, Err(StoreError::Malformed(_))));
}

#[test]
fn a_reference_to_something_else_is_refused() {
    let (payload, lending) = with_lender(&Loans::new(Duration::ZERO), || postcard::to_stdvec(&ObjectRef::inline(b"x")));
    let payload = payload.unwrap();
    let borrows = Borrows::new(|| {});
    let as_value =
        with_borrower(&borrows, lending.table(), || postcard::from_bytes::<ObjectRef<Encoded<u8>>>(&payload));
    assert!(as_value.unwrap().is_err());
    let as_floats = with_borrower(&borrows, lending.table(), || postcard::from_bytes::<ObjectRef<[f32]>>(&payload));
    assert!(as_floats.unwrap().is_err());
}

#[test]
fn slices_and_casts_are_checked() {
    let whole = ObjectRef::inline([7; 16]);
    assert_eq!(whole.slice(4..8).unwrap().slice(1..).unwrap().len(), 3);
    for (start, end) in [(0, 17), (17, 17), (u64::MAX, u64::MAX)] {
        assert!(matches!(whole.slice(start..end), Err(StoreError::OutOfRange { .. })));
    }
    assert!(matches!(whole.slice(..=u64::MAX), Err(StoreError::OutOfRange { .. })));
    #[expect(clippy::reversed_empty_ranges)]
    let reversed = whole.slice(3..2);
    assert!(matches!(reversed, Err(StoreError::OutOfRange { .. })));
    let numbers = whole.clone().cast::<[u32]>().unwrap();
    assert_eq!(&*block_on(numbers.slice(1..3).unwrap().get()).unwrap(), [0x0707_0707; 2]);
    assert!(matches!(whole.slice(1..5).unwrap().cast::<[u32]>(), Err(StoreError::Misaligned { offset: 1, .. })));
    assert!(matches!(whole.slice(..5).unwrap().cast::<[u32]>(), Err(StoreError::Misaligned { len: 5, .. })));
}
