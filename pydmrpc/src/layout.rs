//! How a Python value lies in an object: the bytes that other languages want first, what Python needs to know behind them.
//!
//! ```text
//! object: | payload or buffer 0 | pad | buffer 1 | … | pad | meta | pad | table | trailer |
//!
//! trailer, the last 32 bytes:
//! byte 0               8               16               24        28     29        30      32
//!      +---------------+---------------+----------------+---------+------+---------+-------+
//!      | payload bytes | meta offset   | meta bytes     | buffers | kind | version | magic |
//!      +---------------+---------------+----------------+---------+------+---------+-------+
//!
//! table, `buffers` entries of 16 bytes right before it:
//!      +---------------+---------------+
//!      | offset        | length        |
//!      +---------------+---------------+
//! ```
//!
//! All numbers are little endian. Drawn with examples in `docs/python.md`.
//!
//! 1. The payload begins at byte 0: a slice of the object's first `payload_bytes` is what a Rust actor sees.
//! 2. A buffer begins at a multiple of 64 bytes, one of [`PAGE_ALIGNED_MIN_BYTES`] or more at a multiple of 4096.
//! 3. [`Trailer::read`] of any bytes is an error or names ranges inside the object; it never panics.
#![forbid(unsafe_code)]

use smallvec::SmallVec;
use std::ops::Range;

/// Size of the trailer.
pub(crate) const TRAILER_BYTES: usize = 32;

/// Trailer and meta part of an array are seldom longer together.
pub(crate) const TAIL_BYTES: usize = 512;

/// Buffers from this size on begin at a page, so that edits and slices of one touch no page of another. Below it the padding
/// would be more than a fifth.
pub(crate) const PAGE_ALIGNED_MIN_BYTES: usize = 16 * 1024;

/// The most out-of-band buffers that one value has.
pub(crate) const MAX_BUFFERS: usize = 1 << 20;

const PAGE_BYTES: usize = 4096;
const CACHE_LINE_BYTES: usize = 64;
const ENTRY_BYTES: usize = 16;
const VERSION: u8 = 1;
const MAGIC: u16 = u16::from_le_bytes(*b"Py");

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// `None`, a bool, an int, a float, or a small tuple of such: in the meta part, in the codec of `scalars.rs`.
    Scalar = 1,
    /// A `str`: UTF-8 in the payload.
    Str = 2,
    /// `bytes`: the payload.
    Bytes = 3,
    /// A `bytearray`: the payload.
    ByteArray = 4,
    /// A numpy array: items in the payload, an [`ArrayForm`] in the meta part.
    Array = 5,
    /// A memoryview: as an array, with a format of the `struct` module for a type.
    Memory = 6,
    /// Anything else: a pickle of protocol 5 in the meta part, its out-of-band buffers in the table.
    Pickle = 7,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        use Kind::*;
        [Scalar, Str, Bytes, ByteArray, Array, Memory, Pickle].into_iter().find(|kind| *kind as u8 == byte)
    }

    /// What programs call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Scalar => "scalar",
            Kind::Str => "str",
            Kind::Bytes => "bytes",
            Kind::ByteArray => "bytearray",
            Kind::Array => "array",
            Kind::Memory => "memoryview",
            Kind::Pickle => "pickle",
        }
    }

    /// Whether the value is the payload.
    pub(crate) fn has_payload(self) -> bool {
        !matches!(self, Kind::Scalar | Kind::Pickle)
    }
}

/// Why an object is no Python value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Where the parts of a value of known sizes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Where each buffer (or the payload, as the only one) begins.
    pub(crate) buffers: SmallVec<[usize; 2]>,
    /// Where the meta part begins.
    pub(crate) meta: usize,
    /// Where the table begins.
    pub(crate) table: usize,
    /// Size of the object.
    pub(crate) total: usize,
}

impl Layout {
    /// The layout of a value with a meta part and buffers of these lengths. With a payload the only length is the payload's, and
    /// the table is empty.
    pub(crate) fn new(kind: Kind, meta_bytes: usize, lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut end = 0_usize;
        let mut buffers = SmallVec::new();
        for length in lengths {
            let align = if length >= PAGE_ALIGNED_MIN_BYTES { PAGE_BYTES } else { CACHE_LINE_BYTES };
            let start = end.next_multiple_of(align);
            buffers.push(start);
            end = start + length;
        }
        let meta = end.next_multiple_of(8);
        let table = (meta + meta_bytes).next_multiple_of(8);
        let entries = if kind.has_payload() { 0 } else { buffers.len() };
        Self { buffers, meta, table, total: table + entries * ENTRY_BYTES + TRAILER_BYTES }
    }

    /// Writes table and trailer over the end of `tail`, which ends where the object ends.
    pub(crate) fn write_tail(&self, tail: &mut [u8], kind: Kind, meta_bytes: usize, lengths: &[usize]) {
        let tail_start = tail.len() - (self.total - self.table);
        let tail = &mut tail[tail_start..];
        let mut at = 0;
        let mut push = |number: u64| {
            tail[at..at + 8].copy_from_slice(&number.to_le_bytes());
            at += 8;
        };
        let (payload, entries) =
            if kind.has_payload() { (lengths.first().copied().unwrap_or(0), 0) } else { (0, lengths.len()) };
        for (offset, length) in self.buffers.iter().zip(lengths).take(entries) {
            push(*offset as u64);
            push(*length as u64);
        }
        push(payload as u64);
        push(self.meta as u64);
        push(meta_bytes as u64);
        push(entries as u64 | u64::from(kind as u8) << 32 | u64::from(VERSION) << 40 | u64::from(MAGIC) << 48);
    }
}

/// The parts of a value, as its trailer names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    /// What it is.
    pub(crate) kind: Kind,
    /// Length of the payload; 0 if there is none.
    pub(crate) payload_bytes: usize,
    /// Where the meta part is.
    pub(crate) meta: Range<usize>,
    table: Range<usize>,
}

impl Trailer {
    /// Reads the trailer of a whole object, whatever is in it.
    pub(crate) fn read(object: &[u8]) -> Result<Self, Malformed> {
        Self::read_tail(object, object.len())
    }

    /// Reads the trailer of an object of `object_bytes`, the last of which are `tail`.
    pub(crate) fn read_tail(tail: &[u8], object_bytes: usize) -> Result<Self, Malformed> {
        let numbers = tail.last_chunk::<TRAILER_BYTES>().ok_or(Malformed("shorter than a trailer"))?;
        let at = object_bytes.checked_sub(TRAILER_BYTES).ok_or(Malformed("shorter than a trailer"))?;
        let number = |i: usize| read_u64(numbers, 8 * i);
        let (payload_bytes, meta_offset, meta_bytes, rest) = (number(0), number(1), number(2), number(3));
        if (rest >> 48) as u16 != MAGIC || (rest >> 40) as u8 != VERSION {
            return Err(Malformed("no trailer of this version"));
        }
        let kind = Kind::from_byte((rest >> 32) as u8).ok_or(Malformed("unknown kind of value"))?;
        let entries = rest as u32 as usize;
        let table = at.checked_sub(entries * ENTRY_BYTES).ok_or(Malformed("table longer than the object"))?;
        let meta_end = meta_offset.checked_add(meta_bytes).filter(|end| *end <= table as u64);
        let meta_end = meta_end.ok_or(Malformed("meta part outside the object"))? as usize;
        if payload_bytes > meta_offset || (entries != 0 && kind.has_payload()) || entries > MAX_BUFFERS {
            return Err(Malformed("parts that contradict each other"));
        }
        // Both are at most `table`, so they fit.
        let meta = meta_offset as usize..meta_end;
        Ok(Self { kind, payload_bytes: payload_bytes as usize, meta, table: table..at })
    }

    /// How many buffers there are.
    pub(crate) fn buffers(&self) -> usize {
        self.table.len() / ENTRY_BYTES
    }

    /// Where the `index`-th buffer is.
    pub(crate) fn buffer(&self, object: &[u8], index: usize) -> Result<Range<usize>, Malformed> {
        let at = self.table.start + index * ENTRY_BYTES;
        if at >= self.table.end {
            return Err(Malformed("buffer that is not there"));
        }
        let (offset, length) = (read_u64(object, at), read_u64(object, at + 8));
        match offset.checked_add(length) {
            Some(end) if end <= self.table.start as u64 => Ok(offset as usize..end as usize),
            _ => Err(Malformed("buffer outside the object")),
        }
    }
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The order of an array's items in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// The last axis is contiguous.
    C,
    /// The first axis is contiguous.
    F,
}

/// Type and shape of an array.
///
/// ```text
/// byte 0       1       2            4           8                     next multiple of 8
///      +-------+-------+------------+-----------+---------------------+-------------+
///      | order | axes  | type bytes | item size | type, ASCII         | shape: u64… |
///      +-------+-------+------------+-----------+---------------------+-------------+
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ArrayForm {
    /// The type as numpy's `dtype.str` gives it (`<f8`), or the format of a memoryview.
    pub(crate) dtype: Box<str>,
    /// Size of an item in bytes.
    pub(crate) item_bytes: usize,
    /// Length of each axis.
    pub(crate) shape: SmallVec<[usize; 4]>,
    /// Order in memory.
    pub(crate) order: Order,
}

/// The most axes that an array has (numpy's limit).
const MAX_AXES: usize = 64;
const MAX_TYPE_BYTES: usize = 256;

/// The longest form of an array.
pub(crate) const MAX_FORM_BYTES: usize = 8 + MAX_TYPE_BYTES + 8 * MAX_AXES;

impl ArrayForm {
    /// Bytes of all items; `None` if they are too many to count.
    pub(crate) fn bytes(&self) -> Option<usize> {
        self.shape.iter().try_fold(self.item_bytes, |bytes, axis| bytes.checked_mul(*axis))
    }

    /// Appends the form to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[matches!(self.order, Order::F) as u8, self.shape.len() as u8]);
        out.extend_from_slice(&(self.dtype.len() as u16).to_le_bytes());
        out.extend_from_slice(&(self.item_bytes as u32).to_le_bytes());
        out.extend_from_slice(self.dtype.as_bytes());
        out.resize(start + (out.len() - start).next_multiple_of(8), 0);
        for axis in &self.shape {
            out.extend_from_slice(&(*axis as u64).to_le_bytes());
        }
    }

    /// Reads a whole form.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let short = Malformed("array form cut short");
        let (head, rest) = bytes.split_first_chunk::<8>().ok_or(short)?;
        let [order, axes, type_low, type_high, item_bytes @ ..] = *head;
        let order = match order {
            0 => Order::C,
            1 => Order::F,
            _ => return Err(Malformed("array of unknown order")),
        };
        let type_bytes = usize::from(u16::from_le_bytes([type_low, type_high]));
        if usize::from(axes) > MAX_AXES || type_bytes > MAX_TYPE_BYTES {
            return Err(Malformed("array with too many axes or too long a type"));
        }
        let dtype = std::str::from_utf8(rest.get(..type_bytes).ok_or(short)?);
        let dtype = dtype.map_err(|_| Malformed("array type that is not text"))?.into();
        let axes_at = type_bytes.next_multiple_of(8);
        let shape_bytes = rest.get(axes_at..).filter(|shape| shape.len() == 8 * usize::from(axes)).ok_or(short)?;
        let shape = shape_bytes.chunks_exact(8).map(|axis| usize::try_from(read_u64(axis, 0)));
        let shape = shape.collect::<Result<_, _>>().map_err(|_| Malformed("array that is too large"))?;
        Ok(Self { dtype, item_bytes: u32::from_le_bytes(item_bytes) as usize, shape, order })
    }

    /// Reads a form whose items are exactly `payload_bytes`.
    pub(crate) fn decode_for(bytes: &[u8], payload_bytes: usize) -> Result<Self, Malformed> {
        let form = Self::decode(bytes)?;
        if form.bytes() != Some(payload_bytes) {
            return Err(Malformed("array whose shape does not fit its bytes"));
        }
        Ok(form)
    }
}
