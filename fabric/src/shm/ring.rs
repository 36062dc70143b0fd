//! A ring of bytes between one producer and one consumer, in memory that both map.
//!
//! Positions count bytes since the ring was made and never wrap; a position's place is its low bits. The producer owns
//! `tail`, the consumer `head`, each on a cache line of its own, and each side keeps a copy of the other's index which it
//! looks up again only when the copy says that there is nothing to do.
//!
//! The peer may be hostile and write anything anywhere at any time:
//!
//! 1. Ring memory is reached through atomics and raw copies only; no reference to its bytes ever exists.
//! 2. What is read of the peer's index is copied, checked to lie within the ring and never to go back, and only then used.
//! 3. Bytes between `head` and `tail` are the consumer's, all others the producer's.
//!
//! A side that has nothing to do goes to sleep in three steps: it sets its waiting flag, fences, looks once more. The
//! other side publishes, fences, and looks at the flag. Of two such pairs at least one side sees the other:
//!
//! 4. Whoever sleeps has been or will be woken once there is something for it to do.

use super::area::Area;
use crate::link::LinkError;
use crate::sync::{AtomicU64, Ordering, fence};

/// Keeps what is inside on cache lines of its own; two, as the processor fetches them in pairs.
#[repr(C, align(128))]
#[derive(Debug)]
pub(crate) struct Line<T>(pub(crate) T);

/// What both sides share of a ring besides its bytes. All zero when new, but for `body_limit`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Indices {
    /// End of what was published. The producer writes it.
    pub(crate) tail: Line<AtomicU64>,
    /// End of what was consumed. The consumer writes it.
    pub(crate) head: Line<AtomicU64>,
    /// 1 while the consumer sleeps or is about to.
    pub(crate) consumer_waits: Line<AtomicU64>,
    /// While the producer sleeps or is about to: the `head` that it waits for. Never 0 then.
    pub(crate) producer_waits: Line<AtomicU64>,
    /// What changes once if ever.
    pub(crate) rare: Line<Rare>,
}

/// Written once if ever.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Rare {
    /// 1 when the producer publishes nothing any more.
    pub(crate) producer_ended: AtomicU64,
    /// 1 when the consumer consumes nothing any more.
    pub(crate) consumer_ended: AtomicU64,
    /// The longest body that the consumer takes, in bytes.
    pub(crate) body_limit: AtomicU64,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Indices>() == 5 * 128);

/// The side that writes.
#[derive(Debug)]
pub(crate) struct Producer {
    area: Area,
    /// End of what was written.
    tail: u64,
    /// End of what was published.
    published: u64,
    /// The consumer's `head` when last looked at.
    head: u64,
}

impl Producer {
    /// # Safety
    ///
    /// The only producer of this ring, ever.
    pub(crate) unsafe fn new(area: Area) -> Self {
        Self { area, tail: 0, published: 0, head: 0 }
    }

    pub(crate) fn indices(&self) -> &Indices {
        self.area.indices()
    }

    /// How many bytes can be written; at least `want` if there is room for so many.
    pub(crate) fn room(&mut self, want: usize) -> Result<usize, LinkError> {
        let room = self.area.capacity() - (self.tail - self.head);
        if room >= want as u64 {
            return Ok(room as usize);
        }
        self.look()?;
        Ok((self.area.capacity() - (self.tail - self.head)) as usize)
    }

    /// The consumer's `head`, looked up now.
    pub(crate) fn look(&mut self) -> Result<u64, LinkError> {
        // Acquire pairs with the Release of `Consumer::release`: what was read there was read before we write over it.
        let head = self.indices().head.0.load(Ordering::Acquire);
        if head.wrapping_sub(self.head) > self.published - self.head {
            return Err(LinkError::Protocol("the head of a ring outside of what was published"));
        }
        self.head = head;
        Ok(head)
    }

    /// Writes bytes; not more than there is room for.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        assert!(bytes.len() as u64 <= self.area.capacity() - (self.tail - self.head), "caller: asks for room first");
        // SAFETY: the bytes from `tail` on are ours as far as there is room (invariant 3), which was just checked.
        unsafe { self.area.write(self.tail, bytes) };
        self.tail += bytes.len() as u64;
    }

    /// Lets the consumer see what was written. Whether there was anything.
    pub(crate) fn publish(&mut self) -> bool {
        if self.published == self.tail {
            return false;
        }
        // Release pairs with the Acquire of `Consumer::look`.
        self.indices().tail.0.store(self.tail, Ordering::Release);
        self.published = self.tail;
        true
    }

    /// How many bytes are written and not published.
    pub(crate) fn unpublished(&self) -> usize {
        (self.tail - self.published) as usize
    }

    /// End of what was written.
    pub(crate) fn tail(&self) -> u64 {
        self.tail
    }

    /// After `publish`: whether the consumer is to be woken.
    pub(crate) fn consumer_wants_bell(&self) -> bool {
        // Pairs with the fence of `Consumer::prepare_wait`: either we see its flag or it sees our tail.
        fence(Ordering::SeqCst);
        let waits = &self.indices().consumer_waits.0;
        // AcqRel: the swap decides with `Consumer::stop_waiting` who takes the flag down; one of us does.
        waits.load(Ordering::Relaxed) != 0 && waits.swap(0, Ordering::AcqRel) != 0
    }

    /// Says that we are to be woken once `head` is at `position`, which is published. Then look once more, then sleep.
    pub(crate) fn prepare_wait(&mut self, position: u64) {
        debug_assert!(position > 0 && position <= self.published);
        self.indices().producer_waits.0.store(position, Ordering::Relaxed);
        // Pairs with the fence of `Consumer::producer_wants_bell`: either it sees our flag or we see its head.
        fence(Ordering::SeqCst);
    }

    /// Takes back `prepare_wait`. Whether the bell was or is about to be rung.
    pub(crate) fn stop_waiting(&mut self) -> bool {
        self.indices().producer_waits.0.swap(0, Ordering::AcqRel) == 0
    }

    /// Whether a wait that was prepared has not been answered.
    pub(crate) fn still_waits(&self) -> bool {
        self.indices().producer_waits.0.load(Ordering::Relaxed) != 0
    }

    /// Where `head` has to be for half of a full ring to be free.
    pub(crate) fn half_free(&self) -> u64 {
        (self.head + self.area.capacity() / 2).min(self.published)
    }

    /// How many bytes the ring holds.
    pub(crate) fn capacity(&self) -> usize {
        self.area.capacity() as usize
    }
}

/// The side that reads.
#[derive(Debug)]
pub(crate) struct Consumer {
    area: Area,
    /// End of what was read.
    head: u64,
    /// End of what was given back.
    released: u64,
    /// The producer's `tail` when last looked at.
    tail: u64,
}

impl Consumer {
    /// # Safety
    ///
    /// The only consumer of this ring, ever.
    pub(crate) unsafe fn new(area: Area) -> Self {
        Self { area, head: 0, released: 0, tail: 0 }
    }

    pub(crate) fn indices(&self) -> &Indices {
        self.area.indices()
    }

    /// How many bytes can be read; at least `want` if there are so many.
    pub(crate) fn available(&mut self, want: usize) -> Result<usize, LinkError> {
        if self.tail - self.head < want as u64 {
            self.look()?;
        }
        Ok((self.tail - self.head) as usize)
    }

    /// Looks up the producer's `tail` now.
    fn look(&mut self) -> Result<(), LinkError> {
        // Acquire pairs with the Release of `Producer::publish`: what was written there is seen here.
        let tail = self.indices().tail.0.load(Ordering::Acquire);
        let forward = tail.wrapping_sub(self.tail);
        if forward > self.area.capacity() - (self.tail - self.released) {
            return Err(LinkError::Protocol("the tail of a ring beyond what is free"));
        }
        self.tail = tail;
        Ok(())
    }

    /// Whether the producer published something that we have not looked at.
    pub(crate) fn has_news(&self) -> bool {
        self.indices().tail.0.load(Ordering::Relaxed) != self.tail
    }

    /// Copies the next `len` bytes to `to`; not more than are available.
    ///
    /// # Safety
    ///
    /// `to` is valid for writes of `len` bytes.
    pub(crate) unsafe fn pop(&mut self, to: *mut u8, len: usize) {
        assert!(len as u64 <= self.tail - self.head, "caller: asks what is available first");
        // SAFETY: the bytes between `head` and `tail` are ours (invariant 3); the caller answers for `to`.
        unsafe { self.area.read(self.head, to, len) };
        self.head += len as u64;
    }

    /// Copies the next bytes; not more than are available.
    pub(crate) fn pop_into(&mut self, to: &mut [u8]) {
        // SAFETY: a slice is valid for writes of its length.
        unsafe { self.pop(to.as_mut_ptr(), to.len()) };
    }

    /// Passes over the next bytes; not more than are available.
    pub(crate) fn skip(&mut self, len: usize) {
        assert!(len as u64 <= self.tail - self.head, "caller: asks what is available first");
        self.head += len as u64;
    }

    /// How many bytes were read and not given back.
    pub(crate) fn unreleased(&self) -> usize {
        (self.head - self.released) as usize
    }

    /// Gives back what was read. Whether there was anything.
    pub(crate) fn release(&mut self) -> bool {
        if self.released == self.head {
            return false;
        }
        // Release pairs with the Acquire of `Producer::look`.
        self.indices().head.0.store(self.head, Ordering::Release);
        self.released = self.head;
        true
    }

    /// After `release`: whether the producer is to be woken.
    pub(crate) fn producer_wants_bell(&self) -> bool {
        // Pairs with the fence of `Producer::prepare_wait`: either we see its flag or it sees our head.
        fence(Ordering::SeqCst);
        let waits = &self.indices().producer_waits.0;
        let position = waits.load(Ordering::Relaxed);
        // AcqRel: the swap decides with `Producer::stop_waiting` who takes the flag down; one of us does.
        position != 0 && position <= self.released && waits.swap(0, Ordering::AcqRel) != 0
    }

    /// Says that we are to be woken when there is something. Then look once more, then sleep.
    pub(crate) fn prepare_wait(&mut self) {
        self.indices().consumer_waits.0.store(1, Ordering::Relaxed);
        // Pairs with the fence of `Producer::consumer_wants_bell`: either it sees our flag or we see its tail.
        fence(Ordering::SeqCst);
    }

    /// Takes back `prepare_wait`. Whether the bell was or is about to be rung.
    pub(crate) fn stop_waiting(&mut self) -> bool {
        self.indices().consumer_waits.0.swap(0, Ordering::AcqRel) == 0
    }

    /// Whether a wait that was prepared has not been answered.
    pub(crate) fn still_waits(&self) -> bool {
        self.indices().consumer_waits.0.load(Ordering::Relaxed) != 0
    }

    /// How many bytes the ring holds.
    pub(crate) fn capacity(&self) -> usize {
        self.area.capacity() as usize
    }
}
