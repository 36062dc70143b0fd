//! A client that sends whatever it likes.

use super::client::{Client, Known, NODE, Pending};
use super::{PAGE, World};
use dmrpc_pages::{Buddy, Extent, SegmentId};
use dmrpc_test_random::Random;
use dmrpc_wire::{
    Commit, Grant, GrantToken, Notice, ObjectId, Patch, RawExtent, ReleaseEntry, Reply, Request, SlotLease, Span, Write,
};

impl Client {
    /// Whatever comes to mind.
    pub(crate) fn misbehave(&mut self, world: &mut World, random: &mut Random, known: &Known) {
        let Some(link) = self.link else { return };
        let mut id = match known.ids.len() {
            0 => ObjectId::new(NODE, SlotLease::new(random.below(9) as u32, random.below(3) as u32), random.array()),
            n => known.ids[random.below(n)].0,
        };
        if random.one_in(2) {
            // Guessed: right slot, wrong key; or right key, wrong use of the slot.
            let lease = SlotLease::new(id.slot(), id.generation().wrapping_add(random.below(3) as u32).wrapping_sub(1));
            id = ObjectId::new(NODE, lease, if random.one_in(2) { random.array() } else { *id.key() });
        }
        let extent = |random: &mut Random| -> RawExtent {
            let segment = if random.one_in(8) { u32::MAX } else { random.below(30) as u32 };
            let first = if random.one_in(9) { u32::MAX } else { random.below(50) as u32 };
            Extent::new(SegmentId(segment), first, random.below(40) as u32).into()
        };
        let big = [0, 1, 4095, 4096, 100_000, u64::MAX - 5, u64::MAX][random.below(7)];
        let patches: Vec<Patch> = (0..random.below(4))
            .map(|_| Patch { at: (random.below(14) as u32).into(), extent: extent(random) })
            .collect();
        let spans: Vec<Span> = (0..random.below(4))
            .map(|i| Span { offset: ((i as u64).wrapping_mul(big)).into(), length: (random.below(9000) as u64).into() })
            .collect();
        let grant = Grant { id, token: GrantToken([random.below(3) as u8; 16]), ttl_ms: big.min(5000).into() };
        let entries: Vec<_> =
            (0..random.below(4)).map(|_| ReleaseEntry { id, count: (random.below(5) as u32).into() }).collect();
        let slots: Vec<_> = (0..3).map(|_| SlotLease::new(random.below(40) as u32, random.below(6) as u32)).collect();
        let small = random.below(50) as u32;
        let own = self.slots.last().copied().unwrap_or(slots[0]);
        let new = ObjectId::new(NODE, own, random.array());
        let base = if random.one_in(2) { id } else { ObjectId::NULL };
        let size = random.next() % (14 * PAGE as u64);
        let request = match random.below(18) {
            0 => Request::Lease { pages: small * small * small, slots: small * small * 2, wait_ms: small * 40 },
            1 => Request::Mapped { segment: small },
            2 | 3 => Request::Commit(Commit { id: new, base, size, patches: &patches }),
            4 | 5 => Request::Write(Write { id: new, base, size, spans: &spans }),
            6 => Request::Hold(std::slice::from_ref(&id)),
            7 => Request::Release(&entries),
            8 => Request::Resolve { id, first_page: small, pages: random.next() as u32 },
            9 => Request::Read { id, offset: big, length: random.next() % 9000 },
            10 => Request::Grant(grant),
            11 => Request::Redeem(grant),
            12 => Request::Revoke(grant),
            13 => Request::Return { segment: Some(small), slots: &slots },
            14 => Request::Segment { segment: small },
            15 => Request::Stat,
            16 => Request::Hold(&[]),
            _ => Request::Renew,
        };
        let body_len = match request {
            Request::Write(write) if random.below(4) > 0 => {
                write.spans.iter().map(|span| span.length.get()).sum::<u64>().min(50_000)
            }
            _ if random.one_in(60) => 100,
            _ => 0,
        };
        let mut head = Vec::new();
        let sequence = if random.one_in(10) { random.next() >> random.below(64_u32) } else { self.sequence + 1 };
        if sequence == self.sequence + 1 && request.op().is_sequenced() {
            self.sequence += 1;
        }
        request.encode(sequence, random.next() >> random.below(64_u32), &mut head);
        if random.one_in(40) {
            let at = random.below(head.len());
            head[at] ^= 1 << random.below(8);
        }
        if let Some(link) = world.links.get_mut(&link) {
            link.up.push_back((head, vec![0xee; body_len as usize]));
        }
    }

    pub(crate) fn take_hostile(&mut self, world: &mut World, reply: &Reply<'_>) -> bool {
        match *reply {
            Reply::Welcome(welcome) => {
                self.welcome = Some(welcome);
                self.greeted = true;
            }
            Reply::Notice(Notice::Goodbye) => return false,
            Reply::Leased(leased) => {
                self.slots.extend_from_slice(leased.slots);
                if let Some(info) = leased.segment {
                    self.arena.insert(info.segment, (Buddy::new(info.pages), info.pages));
                    self.order(world, &Request::Mapped { segment: info.segment }, Vec::new(), Pending::Other);
                }
            }
            _ => {}
        }
        true
    }
}
