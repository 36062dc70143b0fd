//! Names of nodes, objects, slots and grants.

use std::fmt;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A memory node, drawn at random when it starts: a node that was restarted is another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

/// The name of an object, and the capability to it: who knows it, within its tenant, may take a hold.
///
/// ```text
/// byte 0        4        8            12                        24
///      +--------+--------+------------+-------------------------+
///      | node   | slot   | generation | key (random)            |
///      +--------+--------+------------+-------------------------+
/// ```
///
/// The client that makes the object draws the key, in a slot that the node leased to it. The generation grows at each reuse
/// of a slot, which tells a stale id from a guessed one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ObjectId {
    node: U32,
    slot: U32,
    generation: U32,
    key: [u8; 12],
}

const _: () = assert!(size_of::<ObjectId>() == 24);

impl ObjectId {
    /// No object: the base of a commit that starts from nothing.
    pub const NULL: Self = Self { node: U32::ZERO, slot: U32::ZERO, generation: U32::ZERO, key: [0; 12] };

    /// The id of an object to be made in `lease`.
    pub fn new(node: NodeId, lease: SlotLease, key: [u8; 12]) -> Self {
        Self { node: node.0.into(), slot: lease.slot, generation: lease.generation, key }
    }

    /// The memory node that has the object.
    pub fn node(&self) -> NodeId {
        NodeId(self.node.get())
    }

    /// The object's slot in that node.
    pub fn slot(&self) -> u32 {
        self.slot.get()
    }

    /// Which use of the slot this is.
    pub fn generation(&self) -> u32 {
        self.generation.get()
    }

    /// The part that can't be guessed.
    pub fn key(&self) -> &[u8; 12] {
        &self.key
    }

    /// Whether this is [`ObjectId::NULL`].
    pub fn is_null(&self) -> bool {
        *self == Self::NULL
    }
}

/// Shows where the object is but not its key, so that logs hold no capabilities.
impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}:{}.{}", self.node.get(), self.slot, self.generation)
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// An empty slot that a session may make one object in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct SlotLease {
    slot: U32,
    generation: U32,
}

impl SlotLease {
    /// The `generation`-th use of `slot`.
    pub fn new(slot: u32, generation: u32) -> Self {
        Self { slot: slot.into(), generation: generation.into() }
    }

    /// The slot.
    pub fn slot(&self) -> u32 {
        self.slot.get()
    }

    /// Which use of it.
    pub fn generation(&self) -> u32 {
        self.generation.get()
    }
}

/// A bearer token, drawn by the client that asks for the grant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct GrantToken(pub [u8; 16]);

impl fmt::Debug for GrantToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GrantToken(..)")
    }
}
