//! What bytes are to be understood as: plain bytes, slices of plain numbers, encoded values.

use crate::StoreError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How the bytes of an object are to be understood. It travels with every reference.
///
/// Numbers from 16 on are free for the layers above; this crate carries them and does nothing with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Codec(pub u8);

impl Codec {
    /// Plain bytes, or a slice of a [`Pod`] type.
    pub const RAW: Self = Self(0);
    /// One value, by [postcard](https://postcard.jamesmunns.com).
    pub const POSTCARD: Self = Self(1);
}

/// A type whose values are their bytes: any bytes are a value, and there is no padding.
///
/// Implemented for everything that [`zerocopy`] can prove it of: numbers, arrays of them, and structs that derive
/// `FromBytes, IntoBytes, Immutable, KnownLayout`.
pub trait Pod: FromBytes + IntoBytes + Immutable + KnownLayout + Copy + Send + Sync + 'static {}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout + Copy + Send + Sync + 'static> Pod for T {}

/// What an [`ObjectRef`](crate::ObjectRef) can refer to: `[T]` for [`Pod`] types, or [`Encoded<T>`].
pub trait Content: sealed::Sealed {
    /// How the bytes are to be understood.
    const CODEC: Codec;

    /// Whether `len` bytes at `offset` of their object can be this.
    ///
    /// # Errors
    ///
    /// [`StoreError::Misaligned`].
    fn check(offset: u64, len: u64) -> Result<(), StoreError>;
}

mod sealed {
    pub trait Sealed {}
    impl<T> Sealed for [T] {}
    impl<T> Sealed for super::Encoded<T> {}
}

/// Objects begin at multiples of this in memory, inline ones included: the largest alignment that a [`Pod`] may want.
pub(crate) const MAX_ALIGNMENT: usize = 64;

/// Has that alignment.
#[repr(align(64))]
pub(crate) struct Aligned;

const _: () = assert!(align_of::<Aligned>() == MAX_ALIGNMENT);

impl<T: Pod> Content for [T] {
    const CODEC: Codec = Codec::RAW;

    fn check(offset: u64, len: u64) -> Result<(), StoreError> {
        const { assert!(size_of::<T>() > 0 && align_of::<T>() <= MAX_ALIGNMENT) };
        if offset % align_of::<T>() as u64 == 0 && len % size_of::<T>() as u64 == 0 {
            Ok(())
        } else {
            Err(StoreError::Misaligned { offset, len, what: std::any::type_name::<[T]>() })
        }
    }
}

/// A serialized `T`: what [`Store::put_value`](crate::Store::put_value) makes, and
/// [`View::decode`](crate::View::decode) turns back.
pub struct Encoded<T>(PhantomData<fn() -> T>);

impl<T> Content for Encoded<T> {
    const CODEC: Codec = Codec::POSTCARD;

    fn check(_: u64, _: u64) -> Result<(), StoreError> {
        Ok(())
    }
}

pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, StoreError> {
    postcard::to_stdvec(value).map_err(|error| StoreError::Codec(format!("encoding: {error}")))
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    postcard::from_bytes(bytes).map_err(|error| StoreError::Codec(format!("decoding: {error}")))
}
