//! What a memory node answers, and what it says unasked.

use crate::layout::{Reader, push};
use crate::{Malformed, NodeId, RawExtent, SlotLease, Status};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What is answered or said. The numbers stand on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
#[non_exhaustive]
pub enum ReplyOp {
    /// The session is open.
    Welcome = 1,
    /// Memory and slots.
    Leased = 2,
    /// Done, with nothing more to say; or why not.
    Done = 3,
    /// A status for each of several.
    Held = 4,
    /// Pages of an object.
    Resolved = 5,
    /// Bytes of an object, in the body.
    Data = 6,
    /// Figures.
    Stats = 7,
    /// A segment, to read.
    SegmentInfo = 8,
    /// Registered memory.
    Region = 9,
    /// Unasked: pages and slots of the arena came free.
    Freed = 64,
    /// Unasked: a one-way request failed.
    Failed = 65,
    /// Unasked: others need memory; give back what is unused.
    Reclaim = 66,
    /// Unasked: the session is over.
    Goodbye = 67,
    /// Unasked: somebody waits for an object that the session has yet to commit.
    Wanted = 68,
}

impl ReplyOp {
    fn from_wire(number: u16) -> Option<Self> {
        use ReplyOp::*;
        Some(match number {
            1 => Welcome,
            2 => Leased,
            3 => Done,
            4 => Held,
            5 => Resolved,
            6 => Data,
            7 => Stats,
            8 => SegmentInfo,
            9 => Region,
            64 => Freed,
            65 => Failed,
            66 => Reclaim,
            67 => Goodbye,
            68 => Wanted,
            _ => return None,
        })
    }
}

/// The first bytes of everything that a node sends.
///
/// ```text
/// byte 0      2        4        8                16               24
///      +------+--------+--------+----------------+----------------+
///      | op   | status | count  | sequence       | applied        |
///      +------+--------+--------+----------------+----------------+
/// ```
///
/// `sequence` repeats the request's (0 for what comes unasked, but for `Failed`, where it names the request that failed).
/// All sequenced requests up to `applied` have been applied: the client may forget them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHead {
    /// What is answered.
    pub op: ReplyOp,
    /// How the request ended.
    pub status: Status,
    /// Whose answer this is.
    pub sequence: u64,
    /// The last sequenced request that was applied.
    pub applied: u64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHead {
    op: U16,
    status: U16,
    count: U32,
    sequence: U64,
    applied: U64,
}

const _: () = assert!(size_of::<RawHead>() == 24);

/// What sees to it that bytes which one host wrote to the pool are what another reads there. The numbers stand on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Coherence {
    /// The hardware: whoever maps the pool sees what was written.
    #[default]
    Hardware = 0,
    /// Its users: a writer writes its cache lines back before it publishes, and a reader drops its own before it first looks at
    /// an object.
    Flush = 1,
}

impl Coherence {
    fn from_wire(number: u32) -> Option<Self> {
        match number {
            0 => Some(Coherence::Hardware),
            1 => Some(Coherence::Flush),
            _ => None,
        }
    }
}

/// The terms of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Which memory node this is.
    pub node: NodeId,
    /// Page size in bytes.
    pub page_bytes: u32,
    /// The session, to resume it.
    pub session: u64,
    /// Its epoch.
    pub epoch: u32,
    /// The session ends if it is not renewed for so long.
    pub lease_ms: u32,
    /// After its end its holds stand for so long.
    pub grace_ms: u32,
    /// How many pages of memory it may have.
    pub quota_pages: u32,
    /// The largest object, in bytes.
    pub max_object_bytes: u64,
    /// The secret that resumes the session.
    pub resume_key: [u8; 16],
    /// What has to be done for others to see what is written to the pool.
    pub coherence: Coherence,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawWelcome {
    node: U32,
    page_bytes: U32,
    session: U64,
    epoch: U32,
    lease_ms: U32,
    grace_ms: U32,
    quota_pages: U32,
    max_object_bytes: U64,
    resume_key: [u8; 16],
    coherence: U32,
    reserved: U32,
}

const _: () = assert!(size_of::<RawWelcome>() == 64);

/// Memory and slots for the session to use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Leased<'a> {
    /// The new segment; `None` if only slots were asked for. Its descriptor comes over the link's descriptor channel, tagged
    /// with this number. The session maps it, says so, and owns all its pages.
    pub segment: Option<SegmentInfo>,
    /// Empty slots.
    pub slots: &'a [SlotLease],
}

/// A segment as a client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number.
    pub segment: u32,
    /// Its size in pages.
    pub pages: u32,
    /// Where it begins in the file whose descriptor comes with it, in bytes.
    pub file_offset: u64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawSegment {
    segment: U32,
    pages: U32,
    file_offset: U64,
}

/// Memory of the node that is registered with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionInfo {
    /// Its address.
    pub address: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// What the device calls it.
    pub key: u32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawRegion {
    address: U64,
    bytes: U64,
    key: U32,
    reserved: U32,
}

const _: () = assert!(size_of::<RawRegion>() == 24);

/// Where pages of an object are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resolved<'a> {
    /// Size of the object in bytes.
    pub size: u64,
    /// The pages from the first that was asked for, in order. They may be fewer than were asked for: ask on.
    pub extents: &'a [RawExtent],
}

/// The node's figures. Pages are counted in pages, the rest in events since the node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Stats {
    /// Size of a page in bytes.
    pub page_bytes: U64,
    /// The hard limit of the pool.
    pub pool_pages: U64,
    /// Pages in segments.
    pub committed_pages: U64,
    /// Pages of segments that nobody has.
    pub free_pages: U64,
    /// Pages leased to sessions and not in any object.
    pub unpublished_pages: U64,
    /// Pages that objects use, each counted once.
    pub live_pages: U64,
    /// Pages that wait for proof that their last writer is gone.
    pub quarantined_pages: U64,
    /// Pages that objects use, counted once for each object: over `live_pages` it is the sharing ratio.
    pub logical_pages: U64,
    /// Segments.
    pub segments: U64,
    /// Sessions, those in their grace period included.
    pub sessions: U64,
    /// Objects.
    pub objects: U64,
    /// Nodes of all extent trees.
    pub tree_nodes: U64,
    /// Holds of all sessions.
    pub holds: U64,
    /// Grants.
    pub grants: U64,
    /// Requests that came.
    pub requests: U64,
    /// Requests that were answered again because they came again.
    pub replays: U64,
    /// Requests that failed.
    pub failures: U64,
    /// Objects made.
    pub commits: U64,
    /// Objects freed.
    pub frees: U64,
    /// Bytes that were read over the network.
    pub bytes_read: U64,
    /// Bytes that were written over the network.
    pub bytes_written: U64,
    /// Pages that the node copied on write.
    pub pages_copied: U64,
    /// Sessions that ended because they were not renewed.
    pub leases_expired: U64,
    /// Times the node's loop woke up.
    pub wakeups: U64,
}

/// What a node answers.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Reply<'a> {
    /// The session is open.
    Welcome(Welcome),
    /// Memory and slots.
    Leased(Leased<'a>),
    /// Done, or the head's status says why not.
    Done,
    /// The [`Status`] number of each entry.
    Held(&'a [U16]),
    /// Pages.
    Resolved(Resolved<'a>),
    /// The body brings bytes.
    Data,
    /// Figures.
    Stats(&'a Stats),
    /// A segment, whose descriptor comes over the link's descriptor channel.
    SegmentInfo(SegmentInfo),
    /// Registered memory.
    Region(RegionInfo),
    /// Said unasked.
    Notice(Notice<'a>),
}

/// What a node says unasked.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Notice<'a> {
    /// Pages and slots of the session's arena came free.
    Freed {
        /// Runs of pages.
        extents: &'a [RawExtent],
        /// Slots, with their next generation.
        slots: &'a [SlotLease],
    },
    /// The one-way request in the head's sequence failed for the head's status.
    Failed,
    /// Others need memory.
    Reclaim {
        /// How much.
        pages: u32,
    },
    /// The session is over, for the head's status.
    Goodbye,
    /// Another session waits for an object in a slot that is leased to this one: whatever it has lent and not committed it is to
    /// commit now.
    Wanted,
}

impl<'a> Reply<'a> {
    /// What is answered.
    pub fn op(&self) -> ReplyOp {
        match self {
            Reply::Welcome(_) => ReplyOp::Welcome,
            Reply::Leased(_) => ReplyOp::Leased,
            Reply::Done => ReplyOp::Done,
            Reply::Held(_) => ReplyOp::Held,
            Reply::Resolved(_) => ReplyOp::Resolved,
            Reply::Data => ReplyOp::Data,
            Reply::Stats(_) => ReplyOp::Stats,
            Reply::SegmentInfo(_) => ReplyOp::SegmentInfo,
            Reply::Region(_) => ReplyOp::Region,
            Reply::Notice(Notice::Freed { .. }) => ReplyOp::Freed,
            Reply::Notice(Notice::Failed) => ReplyOp::Failed,
            Reply::Notice(Notice::Reclaim { .. }) => ReplyOp::Reclaim,
            Reply::Notice(Notice::Goodbye) => ReplyOp::Goodbye,
            Reply::Notice(Notice::Wanted) => ReplyOp::Wanted,
        }
    }

    /// Appends the whole head to `out`.
    pub fn encode(&self, status: Status, sequence: u64, applied: u64, out: &mut Vec<u8>) {
        let count = match self {
            Reply::Leased(leased) => leased.slots.len(),
            Reply::Held(statuses) => statuses.len(),
            Reply::Resolved(resolved) => resolved.extents.len(),
            Reply::Notice(Notice::Freed { extents, .. }) => extents.len(),
            _ => 0,
        };
        push(
            out,
            &RawHead {
                op: (self.op() as u16).into(),
                status: status.to_wire().into(),
                count: u32::try_from(count).expect("entries fit a head").into(),
                sequence: sequence.into(),
                applied: applied.into(),
            },
        );
        match *self {
            Reply::Welcome(ref welcome) => push(out, &RawWelcome::from(welcome)),
            Reply::Leased(Leased { segment, slots }) => {
                push(out, &RawSegment::from(segment));
                push(out, slots);
            }
            Reply::Done | Reply::Data | Reply::Notice(Notice::Failed | Notice::Goodbye | Notice::Wanted) => {}
            Reply::Held(statuses) => push(out, statuses),
            Reply::Resolved(Resolved { size, extents }) => {
                push(out, &U64::new(size));
                push(out, extents);
            }
            Reply::Stats(stats) => push(out, stats),
            Reply::Region(ref info) => push(out, &RawRegion::from(info)),
            Reply::SegmentInfo(info) => push(out, &RawSegment::from(Some(info))),
            Reply::Notice(Notice::Freed { extents, slots }) => {
                push(out, &U32::new(u32::try_from(slots.len()).expect("entries fit a head")));
                push(out, extents);
                push(out, slots);
            }
            Reply::Notice(Notice::Reclaim { pages }) => push(out, &U32::new(pages)),
        }
    }

    /// Parses a whole head. An answer whose status is not [`Status::Ok`] is always [`Reply::Done`] or a notice.
    ///
    /// # Errors
    ///
    /// [`Malformed`] for anything that [`Reply::encode`] does not make.
    pub fn decode(head: &'a [u8]) -> Result<(ReplyHead, Self), Malformed> {
        let mut reader = Reader::new(head);
        let raw: &RawHead = reader.take()?;
        let op = ReplyOp::from_wire(raw.op.get()).ok_or(Malformed("unknown answer"))?;
        let status = Status::from_wire(raw.status.get()).ok_or(Malformed("unknown status"))?;
        let count = raw.count.get() as usize;
        let has_entries = matches!(op, ReplyOp::Leased | ReplyOp::Held | ReplyOp::Resolved | ReplyOp::Freed);
        if count != 0 && !has_entries {
            return Err(Malformed("answer head with unknown parts"));
        }
        let reply = match op {
            ReplyOp::Welcome => Reply::Welcome(reader.take::<RawWelcome>()?.terms()?),
            ReplyOp::Leased => {
                let segment = reader.take::<RawSegment>()?.info()?;
                Reply::Leased(Leased { segment, slots: reader.take_slice(count)? })
            }
            ReplyOp::Done => Reply::Done,
            ReplyOp::Held => Reply::Held(reader.take_slice(count)?),
            ReplyOp::Resolved => {
                let size = reader.take::<U64>()?.get();
                Reply::Resolved(Resolved { size, extents: reader.take_slice(count)? })
            }
            ReplyOp::Data => Reply::Data,
            ReplyOp::Stats => Reply::Stats(reader.take()?),
            ReplyOp::SegmentInfo => {
                Reply::SegmentInfo(reader.take::<RawSegment>()?.info()?.ok_or(Malformed("no segment"))?)
            }
            ReplyOp::Region => Reply::Region(reader.take::<RawRegion>()?.info()?),
            ReplyOp::Freed => {
                let slots = reader.take::<U32>()?.get() as usize;
                let extents = reader.take_slice(count)?;
                Reply::Notice(Notice::Freed { extents, slots: reader.take_slice(slots)? })
            }
            ReplyOp::Failed => Reply::Notice(Notice::Failed),
            ReplyOp::Reclaim => Reply::Notice(Notice::Reclaim { pages: reader.take::<U32>()?.get() }),
            ReplyOp::Goodbye => Reply::Notice(Notice::Goodbye),
            ReplyOp::Wanted => Reply::Notice(Notice::Wanted),
        };
        reader.finish()?;
        let head = ReplyHead { op, status, sequence: raw.sequence.get(), applied: raw.applied.get() };
        Ok((head, reply))
    }
}

impl From<&Welcome> for RawWelcome {
    fn from(welcome: &Welcome) -> Self {
        Self {
            node: welcome.node.0.into(),
            page_bytes: welcome.page_bytes.into(),
            session: welcome.session.into(),
            epoch: welcome.epoch.into(),
            lease_ms: welcome.lease_ms.into(),
            grace_ms: welcome.grace_ms.into(),
            quota_pages: welcome.quota_pages.into(),
            max_object_bytes: welcome.max_object_bytes.into(),
            resume_key: welcome.resume_key,
            coherence: (welcome.coherence as u32).into(),
            reserved: 0.into(),
        }
    }
}

impl RawWelcome {
    fn terms(&self) -> Result<Welcome, Malformed> {
        let coherence = Coherence::from_wire(self.coherence.get()).filter(|_| self.reserved.get() == 0);
        Ok(Welcome {
            node: NodeId(self.node.get()),
            page_bytes: self.page_bytes.get(),
            session: self.session.get(),
            epoch: self.epoch.get(),
            lease_ms: self.lease_ms.get(),
            grace_ms: self.grace_ms.get(),
            quota_pages: self.quota_pages.get(),
            max_object_bytes: self.max_object_bytes.get(),
            resume_key: self.resume_key,
            coherence: coherence.ok_or(Malformed("a welcome with unknown terms"))?,
        })
    }
}

impl From<Option<SegmentInfo>> for RawSegment {
    fn from(info: Option<SegmentInfo>) -> Self {
        let info = info.unwrap_or(SegmentInfo { segment: u32::MAX, pages: 0, file_offset: 0 });
        Self { segment: info.segment.into(), pages: info.pages.into(), file_offset: info.file_offset.into() }
    }
}

impl From<&RegionInfo> for RawRegion {
    fn from(info: &RegionInfo) -> Self {
        Self { address: info.address.into(), bytes: info.bytes.into(), key: info.key.into(), reserved: 0.into() }
    }
}

impl RawRegion {
    /// Its end is an address too.
    fn info(&self) -> Result<RegionInfo, Malformed> {
        let Self { address, bytes, key, reserved } = *self;
        if address.get().checked_add(bytes.get()).is_none() || reserved.get() != 0 {
            return Err(Malformed("a region that makes no sense"));
        }
        Ok(RegionInfo { address: address.get(), bytes: bytes.get(), key: key.get() })
    }
}

impl RawSegment {
    /// `None` for the number that stands for no segment.
    fn info(&self) -> Result<Option<SegmentInfo>, Malformed> {
        let Self { segment, pages, file_offset } = *self;
        match (segment.get(), pages.get(), file_offset.get()) {
            (u32::MAX, 0, 0) => Ok(None),
            (u32::MAX, ..) => Err(Malformed("no segment, of some size")),
            (segment, pages, file_offset) => Ok(Some(SegmentInfo { segment, pages, file_offset })),
        }
    }
}
