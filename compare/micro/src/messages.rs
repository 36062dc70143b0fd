//! Messages there and back over a link of the fabric, both ends spinning.

use crate::row::{Row, Sample};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use dmrpc_fabric::LinkOptions;
use dmrpc_fabric::address::Address;
use dmrpc_fabric::buffer::Buffer;
use dmrpc_fabric::link::{Body, Incoming, Link, Target, TrySendError};
use dmrpc_fabric::listen::{Listener, connect};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Bytes of a head: what a small request or answer is made of.
const HEAD_BYTES: usize = 64;
/// Bodies of answers.
const SIZES: [u64; 4] = [4 << 10, 64 << 10, 1 << 20, 16 << 20];
/// Small ones under way at a time.
const DEPTHS: [u32; 3] = [8, 32, 128];
/// Operations in a measurement of bulk, at least.
const LEAST: u64 = 20;
const LIMIT: Duration = Duration::from_secs(20);
/// So long without an answer what is left to be sent is looked at again.
const SPIN: Duration = Duration::from_micros(100);

/// Answers every message with its head and as many bytes as it says, until the peer is gone.
pub(crate) fn serve(address: &Address, until: Instant) -> Result<()> {
    let data = Bytes::from(vec![7u8; SIZES[SIZES.len() - 1] as usize]);
    let mut listener = Listener::bind(address, &LinkOptions::default())?;
    crate::ready(&listener.address());
    let mut links: Vec<(Link, bool)> = Vec::new();
    let (mut ready, mut turns, mut had) = (Vec::new(), 0u32, false);
    while Instant::now() < until && (!links.is_empty() || !had) {
        // The clock, and who else wants to come in, are looked at now and then.
        for _ in 0..256 {
            if listener.poll(&mut ready)? || turns.is_multiple_of(256) {
                links.extend(listener.try_accept()?.map(|link| (link, false)));
                had |= !links.is_empty();
            }
            ready.clear();
            turns = turns.wrapping_add(1);
            links.retain_mut(|(link, more)| answer(link, more, &data).is_ok());
        }
    }
    Ok(())
}

/// Answers what came over a link.
fn answer(link: &mut Link, more: &mut bool, data: &Bytes) -> Result<()> {
    let mut answered = false;
    while link.receiver.spin(Duration::ZERO) {
        let (head, wanted) = match link.receiver.recv()? {
            Incoming::Empty => break,
            Incoming::Body(_) => continue,
            Incoming::Head { head, body_len } => {
                let mut copy = [0u8; HEAD_BYTES];
                copy.copy_from_slice(head);
                if body_len > 0 {
                    link.receiver.place(Target::Discard);
                }
                let wanted = u64::from_le_bytes(copy[..8].try_into().expect("eight bytes"));
                (copy, wanted as usize)
            }
        };
        let mut body = if wanted == 0 { Body::new() } else { Body::from_iter([data.slice(..wanted)]) };
        while let Err(error) = link.sender.try_send(&head, body) {
            match error {
                TrySendError::Full(back) => body = back,
                TrySendError::Link(error) => return Err(error.into()),
            }
            link.sender.flush()?;
        }
        answered = true;
    }
    // A bulk answer leaves piece by piece.
    if answered || *more {
        *more = !link.sender.flush()?;
    }
    Ok(())
}

/// Asks, and takes the time.
pub(crate) fn ask(fabric: &str, address: &Address, turn: Duration) -> Result<Vec<Row>> {
    let link = connect(address, &LinkOptions::default(), Instant::now() + LIMIT).context("connecting")?;
    let mut asker = Asker { link };
    let mut rows = Vec::new();
    asker.run(0, 1, turn / 4)?;
    rows.push(asker.run(0, 1, turn)?.row(fabric, "message", HEAD_BYTES as u64));
    for depth in DEPTHS {
        rows.push(asker.run(0, depth, turn)?.row(fabric, "message", HEAD_BYTES as u64));
    }
    for size in SIZES {
        rows.push(asker.run(size, 1, turn)?.row(fabric, "message", size));
    }
    Ok(rows)
}

/// What came of a run.
struct Outcome {
    sample: Sample,
    depth: u32,
    took: Duration,
}

impl Outcome {
    fn row(&self, fabric: &str, what: &str, size: u64) -> Row {
        self.sample.row(fabric, what, size, self.depth, self.took)
    }
}

struct Asker {
    link: Link,
}

impl Asker {
    /// Asks for `wanted` bytes again and again, `depth` questions at a time.
    fn run(&mut self, wanted: u64, depth: u32, turn: Duration) -> Result<Outcome> {
        let mut head = [1u8; HEAD_BYTES];
        head[..8].copy_from_slice(&wanted.to_le_bytes());
        let mut sample = Sample::new();
        let mut asked: VecDeque<Instant> = VecDeque::new();
        let mut buffer = (wanted > 0).then(|| Buffer::zeroed(wanted as usize));
        let start = Instant::now();
        let mut now = start;
        let (mut more, mut unsent) = (true, false);
        while more || !asked.is_empty() {
            ensure!(now.elapsed() < LIMIT, "no answer to {} questions", asked.len());
            let mut gathered = 0;
            while more && asked.len() < depth as usize {
                match self.link.sender.try_send(&head, Body::new()) {
                    Ok(()) => {}
                    Err(TrySendError::Full(_)) => break,
                    Err(TrySendError::Link(error)) => return Err(error.into()),
                }
                asked.push_back(now);
                gathered += 1;
            }
            if gathered > 0 || unsent {
                unsent = !self.link.sender.flush()?;
            }
            self.link.receiver.spin(SPIN);
            // All that came together, then the next questions together.
            loop {
                match self.link.receiver.recv()? {
                    Incoming::Empty => break,
                    Incoming::Head { body_len: 0, .. } => {}
                    Incoming::Head { .. } => {
                        let buffer = buffer.take().expect("one answer with a body at a time");
                        self.link.receiver.place(buffer.into());
                        self.link.receiver.spin(SPIN);
                        continue;
                    }
                    Incoming::Body(target) => {
                        let came = Buffer::from_target(target).expect("what was given");
                        buffer = Some(came);
                    }
                }
                now = Instant::now();
                sample.add(now - asked.pop_front().context("an answer to no question")?);
                if !self.link.receiver.spin(Duration::ZERO) {
                    break;
                }
            }
            more = now - start < turn || sample.count() < LEAST && now - start < LIMIT;
        }
        Ok(Outcome { sample, depth, took: now - start })
    }
}
