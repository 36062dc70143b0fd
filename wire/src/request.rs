//! What a client asks of a memory node.

use crate::layout::{Reader, push};
use crate::{GrantToken, MAGIC, Malformed, ObjectId, RawExtent, SlotLease, VERSION};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The longest token in a [`Hello`], in bytes.
pub const MAX_TOKEN_BYTES: usize = 1024;
/// The longest client name in a [`Hello`], in bytes.
pub const MAX_NAME_BYTES: usize = 256;
/// The most slots one lease asks for.
pub const MAX_LEASE_SLOTS: u32 = 4096;

/// [`Hello::features`]: the client is on the node's host, over a link that passes descriptors, and wants segments to map.
pub const FEATURE_LOCAL: u16 = 1;
/// [`Hello::features`]: the client reaches memory that is registered with a device, over a link that can, and wants to do so.
pub const FEATURE_REGISTERED: u16 = 2;

/// What is asked. The numbers stand on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
#[non_exhaustive]
pub enum RequestOp {
    /// Opens or resumes a session.
    Hello = 1,
    /// Asks for memory and slots.
    Lease = 2,
    /// Says that a leased segment is mapped.
    Mapped = 3,
    /// Makes an object out of arena pages, alone or over another object.
    Commit = 4,
    /// Takes holds.
    Hold = 5,
    /// Gives holds back.
    Release = 6,
    /// Asks for an object's pages.
    Resolve = 7,
    /// Asks for an object's bytes.
    Read = 8,
    /// Makes an object out of bytes that follow, alone or over another object.
    Write = 9,
    /// Makes a bearer grant.
    Grant = 10,
    /// Takes a hold by a grant.
    Redeem = 11,
    /// Ends a grant before its time.
    Revoke = 12,
    /// Gives a segment that is wholly unused back.
    Return = 13,
    /// Renews the session's lease.
    Renew = 14,
    /// Asks for the node's figures.
    Stat = 15,
    /// Asks for another session's segment, to read.
    Segment = 16,
    /// Ends the session.
    Bye = 17,
    /// Asks for the key of registered memory.
    Region = 18,
}

impl RequestOp {
    fn from_wire(number: u16) -> Option<Self> {
        use RequestOp::*;
        const ALL: [RequestOp; 18] = [
            Hello, Lease, Mapped, Commit, Hold, Release, Resolve, Read, Write, Grant, Redeem, Revoke, Return, Renew,
            Stat, Segment, Bye, Region,
        ];
        ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// Whether the request changes the node, and so applies once per (epoch, sequence) and in order of sequence. The others
    /// may be asked at any time; their sequence only tells answers apart.
    pub fn is_sequenced(self) -> bool {
        use RequestOp::*;
        !matches!(self, Hello | Resolve | Read | Renew | Stat | Segment | Bye | Region)
    }

    /// Whether an answer comes in the good case. The others are answered by a notice if they fail.
    pub fn is_answered(self) -> bool {
        use RequestOp::*;
        !matches!(self, Mapped | Commit | Release | Revoke | Return | Bye)
    }
}

/// The first bytes of every request.
///
/// ```text
/// byte 0      2      4        8                16               24
///      +------+------+--------+----------------+----------------+
///      | op   | 0    | count  | sequence       | acknowledged   |
///      +------+------+--------+----------------+----------------+
/// ```
///
/// `count` is the number of entries after the fixed part. Answers up to `acknowledged` have arrived: the node may forget them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// What is asked.
    pub op: RequestOp,
    /// From 1 upward in each session epoch for requests that are [sequenced](RequestOp::is_sequenced); a tag that the answer
    /// repeats for the others.
    pub sequence: u64,
    /// The client has the answers of all sequenced requests up to this one.
    pub acknowledged: u64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHead {
    op: U16,
    reserved: U16,
    count: U32,
    sequence: U64,
    acknowledged: U64,
}

const _: () = assert!(size_of::<RawHead>() == 24);

/// Opens a session, or takes one up again after its link broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// [`FEATURE_LOCAL`] or [`FEATURE_REGISTERED`], or none.
    pub features: u16,
    /// How many pages the session would like to be allowed; 0 for what the node gives by default.
    pub quota_pages: u32,
    /// The session to resume; 0 for a new one.
    pub resume_session: u64,
    /// Its epoch.
    pub resume_epoch: u32,
    /// The secret that its welcome brought.
    pub resume_key: [u8; 16],
    /// The tenant's token; empty where the node asks for none.
    pub token: &'a [u8],
    /// What the client calls itself, for people.
    pub name: &'a str,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHello {
    magic: U32,
    version: U16,
    features: U16,
    quota_pages: U32,
    resume_epoch: U32,
    resume_session: U64,
    resume_key: [u8; 16],
    token_len: U16,
    name_len: U16,
}

const _: () = assert!(size_of::<RawHello>() == 44);

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawLease {
    pages: U32,
    slots: U32,
    wait_ms: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawMake {
    id: ObjectId,
    base: ObjectId,
    size: U64,
}

const _: () = assert!(size_of::<RawMake>() == 56);

/// One run of pages of a [`Commit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Patch {
    /// The page of the object at which `extent` is laid over what was there.
    pub at: U32,
    /// The arena pages.
    pub extent: RawExtent,
}

const _: () = assert!(size_of::<Patch>() == 16);

/// One range of bytes of a [`Write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Span {
    /// Byte of the object at which the range begins.
    pub offset: U64,
    /// Number of bytes, which follow in the body in the order of the spans.
    pub length: U64,
}

const _: () = assert!(size_of::<Span>() == 16);

/// Makes object `id` of `size` bytes: `base` (or nothing), with `patches` laid over it in order, cut or extended by zeros to
/// `size`.
///
/// If it is longer than `base`, and that does not end where a page ends, the page in which it ends has to be among the
/// patches: what lies behind the end there is not known to be zeros.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Commit<'a> {
    /// The object to be made, in a slot that the session leased.
    pub id: ObjectId,
    /// The object to start from, or [`ObjectId::NULL`].
    pub base: ObjectId,
    /// Size of the new object in bytes.
    pub size: u64,
    /// Pages of the session's arena.
    pub patches: &'a [Patch],
}

/// As [`Commit`], with bytes in the body instead of arena pages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Write<'a> {
    /// The object to be made, in a slot that the session leased.
    pub id: ObjectId,
    /// The object to start from, or [`ObjectId::NULL`].
    pub base: ObjectId,
    /// Size of the new object in bytes.
    pub size: u64,
    /// Ascending, disjoint ranges of the new object.
    pub spans: &'a [Span],
}

/// Holds to give back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ReleaseEntry {
    /// The object.
    pub id: ObjectId,
    /// How many holds.
    pub count: U32,
}

const _: () = assert!(size_of::<ReleaseEntry>() == 28);

/// A bearer grant to make or to redeem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Grant {
    /// The object.
    pub id: ObjectId,
    /// The token, drawn by the client.
    pub token: GrantToken,
    /// How long the grant lives, in milliseconds; ignored when redeemed.
    pub ttl_ms: U64,
}

const _: () = assert!(size_of::<Grant>() == 48);

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawResolve {
    id: ObjectId,
    first_page: U32,
    pages: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawRead {
    id: ObjectId,
    offset: U64,
    length: U64,
}

/// A request and its parts, borrowed from the head they lie in.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Request<'a> {
    /// Opens or resumes a session.
    Hello(Hello<'a>),
    /// Asks for a segment of `pages` (0 for none) and `slots` slots; waits up to `wait_ms` for room.
    Lease {
        /// Pages wanted, in one segment.
        pages: u32,
        /// Slots wanted, at most [`MAX_LEASE_SLOTS`].
        slots: u32,
        /// How long the node may wait for room before it answers [`crate::Status::OutOfMemory`].
        wait_ms: u32,
    },
    /// The segment is mapped and may be sealed.
    Mapped {
        /// The segment.
        segment: u32,
    },
    /// Makes an object out of arena pages.
    Commit(Commit<'a>),
    /// Takes one hold of each.
    Hold(&'a [ObjectId]),
    /// Gives holds back.
    Release(&'a [ReleaseEntry]),
    /// Asks where `pages` pages from `first_page` are; 0 pages for all to the end.
    Resolve {
        /// The object.
        id: ObjectId,
        /// First page wanted.
        first_page: u32,
        /// Number of pages wanted; 0 for all.
        pages: u32,
    },
    /// Asks for bytes; they come in the body of the answer.
    Read {
        /// The object.
        id: ObjectId,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
    },
    /// Makes an object out of the body.
    Write(Write<'a>),
    /// Makes a grant.
    Grant(Grant),
    /// Takes a hold by a grant.
    Redeem(Grant),
    /// Ends a grant.
    Revoke(Grant),
    /// Gives an unused segment, and slots that no object was made in, back.
    Return {
        /// The segment, or `None` to return slots only.
        segment: Option<u32>,
        /// Unused slots.
        slots: &'a [SlotLease],
    },
    /// Renews the lease.
    Renew,
    /// Asks for figures.
    Stat,
    /// Asks where a segment of the tenant is registered.
    Region {
        /// The segment; `None` for the board, which says what is published in each slot.
        segment: Option<u32>,
        /// For writing, which is for the segment's own session alone.
        write: bool,
    },
    /// Asks for a segment of the tenant, to read.
    Segment {
        /// The segment.
        segment: u32,
    },
    /// Ends the session: everything it holds is let go at once.
    Bye,
}

impl<'a> Request<'a> {
    /// What is asked.
    pub fn op(&self) -> RequestOp {
        match self {
            Request::Hello(_) => RequestOp::Hello,
            Request::Lease { .. } => RequestOp::Lease,
            Request::Mapped { .. } => RequestOp::Mapped,
            Request::Commit(_) => RequestOp::Commit,
            Request::Hold(_) => RequestOp::Hold,
            Request::Release(_) => RequestOp::Release,
            Request::Resolve { .. } => RequestOp::Resolve,
            Request::Read { .. } => RequestOp::Read,
            Request::Write(_) => RequestOp::Write,
            Request::Grant(_) => RequestOp::Grant,
            Request::Redeem(_) => RequestOp::Redeem,
            Request::Revoke(_) => RequestOp::Revoke,
            Request::Return { .. } => RequestOp::Return,
            Request::Renew => RequestOp::Renew,
            Request::Stat => RequestOp::Stat,
            Request::Segment { .. } => RequestOp::Segment,
            Request::Region { .. } => RequestOp::Region,
            Request::Bye => RequestOp::Bye,
        }
    }

    /// Appends the whole head to `out`. Callers keep entries few enough for [`crate::MAX_HEAD_BYTES`].
    pub fn encode(&self, sequence: u64, acknowledged: u64, out: &mut Vec<u8>) {
        let count = match self {
            Request::Commit(commit) => commit.patches.len(),
            Request::Write(write) => write.spans.len(),
            Request::Hold(ids) => ids.len(),
            Request::Release(entries) => entries.len(),
            Request::Return { slots, .. } => slots.len(),
            _ => 0,
        };
        let count = u32::try_from(count).expect("entries fit a head");
        push(
            out,
            &RawHead {
                op: (self.op() as u16).into(),
                reserved: U16::ZERO,
                count: count.into(),
                sequence: sequence.into(),
                acknowledged: acknowledged.into(),
            },
        );
        match *self {
            Request::Hello(ref hello) => encode_hello(hello, out),
            Request::Lease { pages, slots, wait_ms } => {
                push(out, &RawLease { pages: pages.into(), slots: slots.into(), wait_ms: wait_ms.into() });
            }
            Request::Region { segment, write } => {
                push(out, &U32::new(segment.unwrap_or(u32::MAX)));
                push(out, &U32::new(u32::from(write)));
            }
            Request::Mapped { segment } | Request::Segment { segment } => push(out, &U32::new(segment)),
            Request::Commit(Commit { id, base, size, patches }) => {
                push(out, &RawMake { id, base, size: size.into() });
                push(out, patches);
            }
            Request::Write(Write { id, base, size, spans }) => {
                push(out, &RawMake { id, base, size: size.into() });
                push(out, spans);
            }
            Request::Hold(ids) => push(out, ids),
            Request::Release(entries) => push(out, entries),
            Request::Resolve { id, first_page, pages } => {
                push(out, &RawResolve { id, first_page: first_page.into(), pages: pages.into() });
            }
            Request::Read { id, offset, length } => {
                push(out, &RawRead { id, offset: offset.into(), length: length.into() });
            }
            Request::Grant(ref grant) | Request::Redeem(ref grant) | Request::Revoke(ref grant) => push(out, grant),
            Request::Return { segment, slots } => {
                push(out, &U32::new(segment.unwrap_or(u32::MAX)));
                push(out, slots);
            }
            Request::Renew | Request::Stat | Request::Bye => {}
        }
    }

    /// Parses a whole head.
    ///
    /// # Errors
    ///
    /// [`Malformed`] for anything that [`Request::encode`] does not make.
    pub fn decode(head: &'a [u8]) -> Result<(RequestHead, Self), Malformed> {
        let mut reader = Reader::new(head);
        let raw: &RawHead = reader.take()?;
        let op = RequestOp::from_wire(raw.op.get()).ok_or(Malformed("unknown operation"))?;
        let count = raw.count.get() as usize;
        let has_entries = matches!(
            op,
            RequestOp::Commit | RequestOp::Write | RequestOp::Hold | RequestOp::Release | RequestOp::Return
        );
        if raw.reserved.get() != 0 || (count != 0 && !has_entries) {
            return Err(Malformed("request head with unknown parts"));
        }
        let request = match op {
            RequestOp::Hello => Request::Hello(decode_hello(&mut reader)?),
            RequestOp::Lease => {
                let lease: &RawLease = reader.take()?;
                Request::Lease { pages: lease.pages.get(), slots: lease.slots.get(), wait_ms: lease.wait_ms.get() }
            }
            RequestOp::Mapped => Request::Mapped { segment: reader.take::<U32>()?.get() },
            RequestOp::Region => {
                let segment = reader.take::<U32>()?.get();
                let segment = (segment != u32::MAX).then_some(segment);
                match reader.take::<U32>()?.get() {
                    write @ 0..=1 => Request::Region { segment, write: write == 1 },
                    _ => return Err(Malformed("neither for reading nor for writing")),
                }
            }
            RequestOp::Segment => Request::Segment { segment: reader.take::<U32>()?.get() },
            RequestOp::Commit => {
                let RawMake { id, base, size } = *reader.take()?;
                Request::Commit(Commit { id, base, size: size.get(), patches: reader.take_slice(count)? })
            }
            RequestOp::Write => {
                let RawMake { id, base, size } = *reader.take()?;
                Request::Write(Write { id, base, size: size.get(), spans: reader.take_slice(count)? })
            }
            RequestOp::Hold => Request::Hold(reader.take_slice(count)?),
            RequestOp::Release => Request::Release(reader.take_slice(count)?),
            RequestOp::Resolve => {
                let RawResolve { id, first_page, pages } = *reader.take()?;
                Request::Resolve { id, first_page: first_page.get(), pages: pages.get() }
            }
            RequestOp::Read => {
                let RawRead { id, offset, length } = *reader.take()?;
                Request::Read { id, offset: offset.get(), length: length.get() }
            }
            RequestOp::Grant => Request::Grant(*reader.take()?),
            RequestOp::Redeem => Request::Redeem(*reader.take()?),
            RequestOp::Revoke => Request::Revoke(*reader.take()?),
            RequestOp::Return => {
                let segment = reader.take::<U32>()?.get();
                Request::Return { segment: (segment != u32::MAX).then_some(segment), slots: reader.take_slice(count)? }
            }
            RequestOp::Renew => Request::Renew,
            RequestOp::Stat => Request::Stat,
            RequestOp::Bye => Request::Bye,
        };
        reader.finish()?;
        let head = RequestHead { op, sequence: raw.sequence.get(), acknowledged: raw.acknowledged.get() };
        Ok((head, request))
    }
}

fn encode_hello(hello: &Hello<'_>, out: &mut Vec<u8>) {
    assert!(
        hello.token.len() <= MAX_TOKEN_BYTES && hello.name.len() <= MAX_NAME_BYTES,
        "checked by the connecting client"
    );
    push(
        out,
        &RawHello {
            magic: MAGIC.into(),
            version: VERSION.into(),
            features: hello.features.into(),
            quota_pages: hello.quota_pages.into(),
            resume_epoch: hello.resume_epoch.into(),
            resume_session: hello.resume_session.into(),
            resume_key: hello.resume_key,
            token_len: (hello.token.len() as u16).into(),
            name_len: (hello.name.len() as u16).into(),
        },
    );
    out.extend_from_slice(hello.token);
    out.extend_from_slice(hello.name.as_bytes());
}

fn decode_hello<'a>(reader: &mut Reader<'a>) -> Result<Hello<'a>, Malformed> {
    let raw: &RawHello = reader.take()?;
    if raw.magic.get() != MAGIC {
        return Err(Malformed("hello without the magic number"));
    }
    if raw.version.get() != VERSION {
        return Err(Malformed("hello of another protocol version"));
    }
    let (token_len, name_len) = (usize::from(raw.token_len.get()), usize::from(raw.name_len.get()));
    if token_len > MAX_TOKEN_BYTES || name_len > MAX_NAME_BYTES {
        return Err(Malformed("hello with an oversized token or name"));
    }
    Ok(Hello {
        features: raw.features.get(),
        quota_pages: raw.quota_pages.get(),
        resume_session: raw.resume_session.get(),
        resume_epoch: raw.resume_epoch.get(),
        resume_key: raw.resume_key,
        token: reader.take_slice(token_len)?,
        name: std::str::from_utf8(reader.take_slice(name_len)?).map_err(|_| Malformed("name that is not UTF-8"))?,
    })
}
