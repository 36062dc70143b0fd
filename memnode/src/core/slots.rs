//! Object slots: where objects are, and which use of the slot each is.
//!
//! 1. A slot's generation grows whenever what it named is gone, and never comes back: an old id is [`Status::Stale`] for ever.
//!    A slot whose generation is used up is retired.
//! 2. A slot is free, leased to one session, or has one object.

use super::sessions::SessionKey;
use super::snapshot::Root;
use dmrpc_wire::{NodeId, ObjectId, SlotLease, Status};

/// An object that exists.
pub(crate) struct Object {
    key: [u8; 12],
    pub(crate) tenant: u32,
    pub(crate) size: u64,
    pub(crate) root: Root,
    /// Holds of all sessions, grants, and transfers in flight. At zero the object goes.
    pub(crate) references: u64,
}

enum State {
    Free,
    Leased,
    Live(Object),
    Retired,
}

struct Slot {
    generation: u32,
    /// The session that leased the slot. `None` if that has ended.
    owner: Option<SessionKey>,
    /// Whether the slot comes back to its owner when its object is gone.
    returns: bool,
    state: State,
}

/// What becomes of a slot whose object is gone.
pub(crate) enum Fate {
    /// It is leased to the session it was leased to before, for its next use.
    Returned(SessionKey, SlotLease),
    /// It is free. It was this session's, if that is still there.
    Free(Option<SessionKey>),
}

/// More slots than this are never in use: the references to a tree node are counted in 32 bits.
const MAX_SLOTS: u32 = 1 << 30;

/// What an id leads to.
pub(crate) enum Lookup {
    Found,
    /// A slot whose session may be about to make the object: the id overtook its commit.
    Pending(SessionKey),
    Missing(Status),
}

pub(crate) struct Slots {
    node: NodeId,
    slots: Vec<Slot>,
    free: Vec<u32>,
    live: usize,
}

impl Slots {
    pub(crate) fn new(node: NodeId) -> Self {
        Self { node, slots: Vec::new(), free: Vec::new(), live: 0 }
    }

    /// Number of objects.
    pub(crate) fn objects(&self) -> usize {
        self.live
    }

    /// Leases an empty slot to `owner`, to which it comes back after each use if it `returns`; `None` when all are in use.
    pub(crate) fn lease(&mut self, owner: SessionKey, returns: bool) -> Option<SlotLease> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = u32::try_from(self.slots.len()).ok().filter(|&index| index < MAX_SLOTS)?;
                self.slots.push(Slot { generation: 1, owner: None, returns, state: State::Free });
                index
            }
        };
        let slot = &mut self.slots[index as usize];
        slot.owner = Some(owner);
        slot.returns = returns;
        slot.state = State::Leased;
        Some(SlotLease::new(index, slot.generation))
    }

    /// Takes back a slot in which `owner` made nothing.
    pub(crate) fn unlease(&mut self, lease: SlotLease, owner: SessionKey) -> Result<(), Status> {
        let slot = self.slots.get_mut(lease.slot() as usize).ok_or(Status::NotFound)?;
        if slot.generation != lease.generation() {
            return Err(Status::Stale);
        }
        if slot.owner != Some(owner) || !matches!(slot.state, State::Leased) {
            return Err(Status::Denied);
        }
        slot.owner = None;
        slot.state = State::Free;
        self.retire_use(lease.slot());
        Ok(())
    }

    /// The owner has ended: its empty slots are free, and those of its objects will be. Whether the slot was the owner's.
    pub(crate) fn disown(&mut self, index: u32, owner: SessionKey) -> bool {
        let slot = &mut self.slots[index as usize];
        if slot.owner != Some(owner) {
            return false;
        }
        slot.owner = None;
        if matches!(slot.state, State::Leased) {
            slot.state = State::Free;
            self.retire_use(index);
        }
        true
    }

    /// Whether `id` names a slot in which `owner` may make an object now.
    pub(crate) fn check_empty(&self, id: &ObjectId, owner: SessionKey) -> Result<(), Status> {
        let slot = self.slots.get(id.slot() as usize).filter(|_| id.node() == self.node).ok_or(Status::NotFound)?;
        if slot.owner != Some(owner) {
            return Err(Status::Denied);
        }
        match slot.state {
            State::Leased if slot.generation == id.generation() => Ok(()),
            _ => Err(Status::Stale),
        }
    }

    /// Puts an object into a slot that [`Slots::check_empty`] found empty, with one reference.
    pub(crate) fn make(&mut self, id: &ObjectId, tenant: u32, size: u64, root: Root) {
        let slot = &mut self.slots[id.slot() as usize];
        debug_assert!(matches!(slot.state, State::Leased) && slot.generation == id.generation());
        slot.state = State::Live(Object { key: *id.key(), tenant, size, root, references: 1 });
        self.live += 1;
    }

    /// What `id` leads to, for a session of `tenant`.
    pub(crate) fn find(&self, id: &ObjectId, tenant: u32) -> Lookup {
        let Some(slot) = self.slots.get(id.slot() as usize).filter(|_| id.node() == self.node) else {
            return Lookup::Missing(Status::NotFound);
        };
        if id.generation() < slot.generation {
            return Lookup::Missing(Status::Stale);
        }
        match &slot.state {
            _ if id.generation() > slot.generation => Lookup::Missing(Status::NotFound),
            State::Live(object) if object.key == *id.key() && object.tenant == tenant => Lookup::Found,
            State::Leased => slot.owner.map_or(Lookup::Missing(Status::NotFound), Lookup::Pending),
            _ => Lookup::Missing(Status::NotFound),
        }
    }

    /// The object in a slot that is known to have one.
    pub(crate) fn object(&mut self, index: u32) -> &mut Object {
        match &mut self.slots[index as usize].state {
            State::Live(object) => object,
            _ => unreachable!("a hold, grant or transfer names slot {index}, which has no object"),
        }
    }

    /// Takes references away. If they were the last, the object is gone: returns it, and what becomes of its slot.
    #[must_use]
    pub(crate) fn drop_references(&mut self, index: u32, count: u64) -> Option<(Object, Fate)> {
        let object = self.object(index);
        object.references = object.references.checked_sub(count).expect("whoever lets go had references");
        if object.references > 0 {
            return None;
        }
        let slot = &mut self.slots[index as usize];
        let State::Live(object) = std::mem::replace(&mut slot.state, State::Free) else {
            unreachable!("it was live a moment ago")
        };
        self.live -= 1;
        match slot.owner {
            Some(owner) if slot.returns && slot.generation < u32::MAX => {
                slot.generation += 1;
                slot.state = State::Leased;
                Some((object, Fate::Returned(owner, SlotLease::new(index, slot.generation))))
            }
            owner => {
                slot.owner = None;
                self.retire_use(index);
                Some((object, Fate::Free(owner)))
            }
        }
    }

    /// Whether the slot is leased to `owner`, with or without an object.
    pub(crate) fn is_owned(&self, index: u32, owner: SessionKey) -> bool {
        self.slots[index as usize].owner == Some(owner)
    }

    /// Moves a free slot to its next generation.
    fn retire_use(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        match slot.generation.checked_add(1) {
            Some(next) => {
                slot.generation = next;
                self.free.push(index);
            }
            None => slot.state = State::Retired,
        }
    }

    /// How many slots are leased to `owner`, with and without objects.
    pub(crate) fn owned_by(&self, owner: SessionKey) -> usize {
        self.slots.iter().filter(|slot| slot.owner == Some(owner)).count()
    }

    /// All objects, with their slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Object)> {
        (0u32..).zip(&self.slots).filter_map(|(index, slot)| match &slot.state {
            State::Live(object) => Some((index, object)),
            _ => None,
        })
    }
}
