//! A ring of bytes between one producer and one consumer, in memory that both map.
//!
//! Positions count bytes since the ring was made and never wrap; a position's place is its low bits. The producer owns
//! `tail`, the consumer `head`, each on a cache line of its own, and each side keeps a copy of the other's index which it
//! looks up again only when the copy says that there is nothing to do. A side's waiting flag lies beside its index: it is
//! written when the index is, and looked at when the index is news anyway.
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
use crate::sync::{AtomicU64, Ordering, fence, raise};

/// Keeps what is inside on cache lines of its own; two, as the processor fetches them in pairs.
#[repr(C, align(128))]
#[derive(Debug)]
pub(crate) struct Line<T>(pub(crate) T);

/// What both sides share of a ring besides its bytes. All zero when new, but for `body_limit`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Indices {
    /// What the producer writes.
    pub(crate) producer: Line<Side>,
    /// What the consumer writes.
    pub(crate) consumer: Line<Side>,
    /// What changes once if ever.
    pub(crate) rare: Line<Rare>,
}

/// What one side writes; but the other side takes the flag down when it rings.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Side {
    /// `tail`, the end of what was published, or `head`, the end of what was consumed.
    pub(crate) index: AtomicU64,
    /// Not 0 while the side sleeps or is about to: 1, or the `head` that the producer waits for.
    pub(crate) waits: AtomicU64,
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
const _: () = assert!(size_of::<Indices>() == 3 * 128);

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
        let head = self.indices().consumer.0.index.load(Ordering::Acquire);
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
        self.indices().producer.0.index.store(self.tail, Ordering::Release);
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

    /// After `publish`: whether the consumer sleeps or is about to, and is to be woken later, when
    /// [`consumer_wants_bell`](Producer::consumer_wants_bell) says so. If not it has seen or will see what was published.
    pub(crate) fn consumer_sleeps(&self) -> bool {
        // Pairs with the fence of `Consumer::prepare_wait`: either we see its flag or it sees our tail.
        fence(Ordering::SeqCst);
        self.indices().consumer.0.waits.load(Ordering::Relaxed) != 0
    }

    /// After `publish`: whether the consumer is to be woken.
    pub(crate) fn consumer_wants_bell(&self) -> bool {
        // Pairs with the fence of `Consumer::prepare_wait`: either we see its flag or it sees our tail.
        fence(Ordering::SeqCst);
        let waits = &self.indices().consumer.0.waits;
        // AcqRel: the swap decides with `Consumer::stop_waiting` who takes the flag down; one of us does.
        waits.load(Ordering::Relaxed) != 0 && waits.swap(0, Ordering::AcqRel) != 0
    }

    /// Says that we are to be woken once `head` is at `position`, which is published. Then look once more, then sleep.
    pub(crate) fn prepare_wait(&mut self, position: u64) {
        debug_assert!(position > 0 && position <= self.published);
        raise(&self.indices().producer.0.waits, position);
        // Pairs with the fence of `Consumer::producer_wants_bell` or `Consumer::prepare_wait`: either it sees our flag or we
        // see its head.
        fence(Ordering::SeqCst);
    }

    /// Takes back `prepare_wait`. Whether the bell was or is about to be rung.
    pub(crate) fn stop_waiting(&mut self) -> bool {
        let waits = &self.indices().producer.0.waits;
        // Whoever takes the flag down rings; when it is down we need not try. AcqRel as in `consumer_wants_bell`.
        waits.load(Ordering::Relaxed) == 0 || waits.swap(0, Ordering::AcqRel) == 0
    }

    /// Whether a wait that was prepared has not been answered.
    pub(crate) fn still_waits(&self) -> bool {
        self.indices().producer.0.waits.load(Ordering::Relaxed) != 0
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
        let tail = self.indices().producer.0.index.load(Ordering::Acquire);
        let forward = tail.wrapping_sub(self.tail);
        if forward > self.area.capacity() - (self.tail - self.released) {
            return Err(LinkError::Protocol("the tail of a ring beyond what is free"));
        }
        self.tail = tail;
        Ok(())
    }

    /// Whether the producer published something that we have not looked at.
    pub(crate) fn has_news(&self) -> bool {
        self.indices().producer.0.index.load(Ordering::Relaxed) != self.tail
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
        self.indices().consumer.0.index.store(self.head, Ordering::Release);
        self.released = self.head;
        true
    }

    /// After `release`: whether the producer is to be woken.
    pub(crate) fn producer_wants_bell(&self) -> bool {
        // Pairs with the fence of `Producer::prepare_wait`: either we see its flag or it sees our head.
        fence(Ordering::SeqCst);
        self.producer_wants_bell_behind_fence()
    }

    /// After `release` and then `prepare_wait`, whose fence serves for this too: whether the producer is to be woken.
    pub(crate) fn producer_wants_bell_behind_fence(&self) -> bool {
        let waits = &self.indices().producer.0.waits;
        let position = waits.load(Ordering::Relaxed);
        // AcqRel: the swap decides with `Producer::stop_waiting` who takes the flag down; one of us does.
        position != 0 && position <= self.released && waits.swap(0, Ordering::AcqRel) != 0
    }

    /// Says that we are to be woken when there is something. Then look once more, then sleep.
    pub(crate) fn prepare_wait(&mut self) {
        raise(&self.indices().consumer.0.waits, 1);
        // Pairs with the fence of `Producer::consumer_wants_bell`: either it sees our flag or we see its tail. Pairs as well
        // with that of `Producer::prepare_wait`: see `producer_wants_bell_behind_fence`.
        fence(Ordering::SeqCst);
    }

    /// Takes back `prepare_wait`. Whether the bell was or is about to be rung.
    pub(crate) fn stop_waiting(&mut self) -> bool {
        let waits = &self.indices().consumer.0.waits;
        // As in `Producer::stop_waiting`.
        waits.load(Ordering::Relaxed) == 0 || waits.swap(0, Ordering::AcqRel) == 0
    }

    /// Whether a wait that was prepared has not been answered.
    pub(crate) fn still_waits(&self) -> bool {
        self.indices().consumer.0.waits.load(Ordering::Relaxed) != 0
    }

    /// How many bytes the ring holds.
    pub(crate) fn capacity(&self) -> usize {
        self.area.capacity() as usize
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ends(capacity: usize) -> (Producer, Consumer) {
        let (a, b) = Area::heap_pair(capacity);
        // SAFETY: one of each.
        unsafe { (Producer::new(a), Consumer::new(b)) }
    }

    proptest! {
        /// Whatever the sizes of the steps, the bytes come out as they went in (invariant 3).
        #[test]
        fn bytes_arrive_as_they_were_sent(
            order in 0..8u32,
            steps in prop::collection::vec((0..300usize, 0..300usize, any::<bool>(), any::<bool>()), 1..200),
        ) {
            let (mut producer, mut consumer) = ends(1 << order);
            let (mut sent, mut published, mut received) = (0u64, 0u64, 0u64);
            for (write, read, publish, release) in steps {
                let count = producer.room(write).unwrap().min(write);
                let bytes: Vec<u8> = (sent..).take(count).map(|byte| (byte ^ byte >> 8) as u8).collect();
                producer.push(&bytes);
                sent += count as u64;
                if publish {
                    prop_assert_eq!(producer.publish(), sent > published);
                    published = sent;
                }
                let count = consumer.available(read).unwrap().min(read);
                prop_assert!(received + count as u64 <= published);
                let mut bytes = vec![0; count];
                consumer.pop_into(&mut bytes);
                for byte in bytes {
                    prop_assert_eq!(byte, (received ^ received >> 8) as u8);
                    received += 1;
                }
                if release {
                    consumer.release();
                }
            }
            producer.publish();
            prop_assert_eq!(consumer.available(usize::MAX).unwrap() as u64, sent - received);
        }

        /// Invariant 2: an index of a hostile peer that is not possible is an error, and one that is possible is used.
        #[test]
        fn garbage_in_the_indices_is_an_error(order in 0..8u32, sent in 0..256usize, tail: u64, head: u64) {
            let capacity = 1u64 << order;
            let (mut producer, mut consumer) = ends(1 << order);
            let sent = producer.room(usize::MAX).unwrap().min(sent);
            producer.push(&vec![0; sent]);
            producer.publish();

            producer.indices().consumer.0.index.store(head, Ordering::Relaxed);
            match producer.look() {
                Ok(found) => prop_assert!(found == head && head <= sent as u64),
                Err(error) => prop_assert!(matches!(error, LinkError::Protocol(_)) && head > sent as u64),
            }
            consumer.indices().producer.0.index.store(tail, Ordering::Relaxed);
            match consumer.available(usize::MAX) {
                Ok(found) => prop_assert!(found as u64 == tail && tail <= capacity),
                Err(error) => prop_assert!(matches!(error, LinkError::Protocol(_)) && tail > capacity),
            }
        }
    }

    /// Invariant 4, one side at a time.
    #[test]
    fn a_bell_is_wanted_once_a_wait() {
        let (mut producer, mut consumer) = ends(4);
        producer.push(b"a");
        producer.publish();
        assert!(!producer.consumer_wants_bell(), "nobody waits");
        consumer.prepare_wait();
        assert!(producer.consumer_wants_bell());
        assert!(!producer.consumer_wants_bell(), "it was rung");
        assert!(!consumer.still_waits() && consumer.stop_waiting(), "the consumer knows");
        consumer.prepare_wait();
        assert!(consumer.still_waits() && !consumer.stop_waiting(), "taken back in time");
        assert!(!producer.consumer_wants_bell());

        producer.push(b"bcd");
        producer.publish();
        assert_eq!(producer.room(1).unwrap(), 0);
        let position = producer.half_free();
        producer.prepare_wait(position);
        for _ in 0..2 {
            assert!(!consumer.producer_wants_bell(), "not yet");
            assert!(consumer.available(1).unwrap() > 0);
            consumer.pop_into(&mut [0]);
            consumer.release();
        }
        assert!(consumer.producer_wants_bell());
        assert!(producer.stop_waiting());
        assert_eq!(producer.room(2).unwrap(), 2);
    }
}

/// Every interleaving of the two sides, as loom finds them. Takes a minute:
///
/// ```sh
/// RUSTFLAGS="--cfg loom" cargo test -p dmrpc-fabric --lib --target-dir target/loom loom
/// ```
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    /// An eventfd.
    #[derive(Default)]
    struct Bell(Mutex<bool>, Condvar);

    impl Bell {
        fn ring(&self) {
            *self.0.lock().unwrap() = true;
            self.1.notify_one();
        }

        /// Sleeps until it is rung, and stills it. loom fails the test if nobody can ring any more.
        fn wait(&self) {
            let mut rung = self.0.lock().unwrap();
            while !*rung {
                rung = self.1.wait(rung).unwrap();
            }
            *rung = false;
        }

        fn still(&self) {
            *self.0.lock().unwrap() = false;
        }
    }

    /// As `ShmSender::flush` does.
    fn send(producer: &mut Producer, bytes: &[u8], data: &Bell, space: &Bell) {
        let mut left = bytes;
        while !left.is_empty() {
            let count = producer.room(left.len()).unwrap().min(left.len());
            producer.push(&left[..count]);
            left = &left[count..];
            if producer.publish() && producer.consumer_wants_bell() {
                data.ring();
            }
            if left.is_empty() {
                return;
            }
            let position = producer.half_free();
            producer.prepare_wait(position);
            if producer.look().unwrap() < position {
                // It may be rung late, for a wait that was taken back: then all is looked at once more.
                space.wait();
            } else if producer.stop_waiting() {
                space.still();
            }
        }
    }

    /// As `ShmSender::publish` does for each byte but the last, and `ShmSender::flush` then; what is sent fits.
    fn send_quietly(producer: &mut Producer, bytes: &[u8], data: &Bell) {
        let mut owes_bell = false;
        for byte in bytes {
            assert!(producer.room(1).unwrap() > 0);
            producer.push(std::slice::from_ref(byte));
            owes_bell |= producer.publish() && producer.consumer_sleeps();
        }
        if owes_bell && producer.consumer_wants_bell() {
            data.ring();
        }
    }

    /// As `ShmReceiver::recv` does. `None` at the end.
    fn receive(consumer: &mut Consumer, data: &Bell, space: &Bell) -> Option<u8> {
        loop {
            if consumer.available(1).unwrap() > 0 {
                let mut byte = [0];
                consumer.pop_into(&mut byte);
                return Some(byte[0]);
            }
            let released = consumer.release();
            consumer.prepare_wait();
            if released && consumer.producer_wants_bell_behind_fence() {
                space.ring();
            }
            let ended = consumer.indices().rare.0.producer_ended.load(Ordering::Acquire) != 0;
            if consumer.has_news() {
                if consumer.stop_waiting() {
                    data.still();
                }
            } else if ended {
                return None;
            } else {
                data.wait();
            }
        }
    }

    fn ends(capacity: usize) -> (Producer, Consumer, [Arc<Bell>; 2], [Arc<Bell>; 2]) {
        let (a, b) = Area::heap_pair(capacity);
        let bells: [Arc<Bell>; 2] = Default::default();
        // SAFETY: one of each.
        let (producer, consumer) = unsafe { (Producer::new(a), Consumer::new(b)) };
        (producer, consumer, bells.clone(), bells)
    }

    /// Invariants 3 and 4: all bytes arrive in order, nobody sleeps for ever, no byte is touched by two at a time.
    fn all_arrive(capacity: usize, sends: &'static [&'static [u8]], preemptions: usize) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(preemptions);
        model.check(move || {
            let (mut producer, mut consumer, [data, space], [data_there, space_there]) = ends(capacity);
            let sender = thread::spawn(move || {
                for bytes in sends {
                    send(&mut producer, bytes, &data, &space);
                }
                // As the drop of `ShmSender` does.
                producer.indices().rare.0.producer_ended.store(1, Ordering::Release);
                fence(Ordering::SeqCst);
                data.ring();
            });
            let mut received = Vec::new();
            while let Some(byte) = receive(&mut consumer, &data_there, &space_there) {
                received.push(byte);
            }
            assert_eq!(received, sends.concat());
            sender.join().unwrap();
        });
    }

    #[test]
    fn loom_a_message_at_a_time() {
        all_arrive(4, &[b"a", b"b", b"c"], 3);
    }

    /// Invariant 4 where the bell is rung later than what was published, and only if the consumer was seen to sleep.
    #[test]
    fn loom_published_first_and_rung_later() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let (mut producer, mut consumer, [data, _], [data_there, space_there]) = ends(4);
            let sender = thread::spawn(move || {
                send_quietly(&mut producer, b"ab", &data);
                send_quietly(&mut producer, b"c", &data);
                producer
            });
            // No end wakes it: only the bells do.
            for expected in *b"abc" {
                assert_eq!(receive(&mut consumer, &data_there, &space_there), Some(expected));
            }
            sender.join().unwrap();
        });
    }

    #[test]
    fn loom_more_than_fits() {
        all_arrive(2, &[b"abcde"], 3);
    }

    #[test]
    fn loom_around_the_end() {
        all_arrive(2, &[b"a", b"bc", b"d"], 3);
    }
}
