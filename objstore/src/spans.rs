//! Bytes to be written over an object at its memory node: an edit over a network.
//!
//! 1. Spans are not empty, and neither overlap nor touch.
//! 2. Bytes of the base at or after `floor` are not seen any more: the edit was once cut to that.

use crate::client::Client;
use crate::object::{MAX_PATCHES, Object};
use crate::{AnyRef, StoreError, draft};
use bytes::Bytes;
use dmrpc_wire::ObjectId;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) struct Spans {
    base: Arc<Object>,
    /// Where in its object the picture begins.
    offset: u64,
    floor: u64,
    len: u64,
    spans: BTreeMap<u64, Vec<u8>>,
}

impl Spans {
    pub(crate) fn new(base: &Arc<Object>, offset: u64, len: u64) -> Self {
        Self { base: base.clone(), offset, floor: len, len, spans: BTreeMap::new() }
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        write_into(&mut self.spans, offset, bytes);
    }

    pub(crate) async fn read(&self, base: &AnyRef, offset: u64, into: &mut [u8]) -> Result<(), StoreError> {
        let seen = self.floor.saturating_sub(offset).min(into.len() as u64) as usize;
        let (seen, zeros) = into.split_at_mut(seen);
        zeros.fill(0);
        if !seen.is_empty() {
            base.read(offset, seen).await?;
        }
        let end = offset + into.len() as u64;
        let first = self.spans.range(..=offset).next_back().map_or(offset, |(at, _)| *at);
        for (&at, span) in self.spans.range(first..end) {
            let part = offset.max(at)..end.min(at + span.len() as u64);
            if part.is_empty() {
                continue;
            }
            let from = &span[(part.start - at) as usize..(part.end - at) as usize];
            into[(part.start - offset) as usize..][..from.len()].copy_from_slice(from);
        }
        Ok(())
    }

    pub(crate) fn resize(&mut self, len: u64) {
        if len < self.len {
            self.floor = self.floor.min(len);
            self.spans.split_off(&len);
            if let Some((&at, span)) = self.spans.iter_mut().next_back() {
                span.truncate((len - at).min(span.len() as u64) as usize);
            }
        }
        self.len = len;
    }

    /// Makes an object of `len` bytes of it.
    pub(crate) async fn commit(mut self, of: &AnyRef, len: u64) -> Result<Arc<Object>, StoreError> {
        let client: Arc<Client> = self.base.client.clone();
        let mut base: Option<Arc<Object>> = Some(self.base.clone());
        if self.offset != 0 {
            // The node can only lay spans over a whole object: this is another one.
            let mut bytes = vec![0; len as usize];
            self.read(of, 0, &mut bytes).await?;
            return draft::write(&client, ObjectId::NULL, len, &draft::whole(bytes.into())).await;
        }
        if self.floor < len.min(self.base.size()) {
            // The node extends by zeros what it has cut before.
            base = Some(draft::write(&client, self.base.id(), self.floor, &[]).await?);
        }
        let spans: Vec<(u64, Bytes)> =
            std::mem::take(&mut self.spans).into_iter().map(|(at, span)| (at, Bytes::from(span))).collect();
        let mut chunks = spans.chunks(MAX_PATCHES);
        let mut chunk = chunks.next().unwrap_or(&[]);
        loop {
            let below = base.as_ref().map_or(ObjectId::NULL, |base| base.id());
            let object = draft::write(&client, below, len, chunk).await?;
            match chunks.next() {
                Some(next) => chunk = next,
                None => return Ok(object),
            }
            base = Some(object);
        }
    }
}

/// Lays `bytes` over the spans: those that they overlap or touch become one.
fn write_into(spans: &mut BTreeMap<u64, Vec<u8>>, offset: u64, bytes: &[u8]) {
    let end = offset + bytes.len() as u64;
    let before = spans.range_mut(..=offset).next_back();
    let mut start = offset;
    let mut merged = match before {
        // Goes on where the last one ended, or writes into it.
        Some((&at, span)) if at + span.len() as u64 >= offset => {
            let into = (offset - at) as usize;
            let over = (span.len() - into).min(bytes.len());
            span[into..into + over].copy_from_slice(&bytes[..over]);
            span.extend_from_slice(&bytes[over..]);
            if at + span.len() as u64 > end {
                return;
            }
            start = at;
            std::mem::take(span)
        }
        _ => bytes.to_vec(),
    };
    while let Some((&at, _)) = spans.range(start..=end).find(|(at, _)| **at != start || start == offset) {
        let span = spans.remove(&at).expect("just found");
        let covered = (end - at) as usize;
        if span.len() > covered {
            merged.extend_from_slice(&span[covered..]);
            break;
        }
    }
    spans.insert(start, merged);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As [`Spans`], of which only the spans count here.
    fn written(writes: &[(u64, Vec<u8>)]) -> BTreeMap<u64, Vec<u8>> {
        let mut model: BTreeMap<u64, u8> = BTreeMap::new();
        for (offset, bytes) in writes {
            model.extend((*offset..).zip(bytes.iter().copied()));
        }
        let mut spans: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for (at, byte) in model {
            match spans.iter_mut().next_back() {
                Some((start, span)) if start + span.len() as u64 == at => span.push(byte),
                _ => drop(spans.insert(at, vec![byte])),
            }
        }
        spans
    }

    proptest! {
        #[test]
        fn spans_are_the_bytes_that_were_written(
            writes in prop::collection::vec((0..60u64, prop::collection::vec(any::<u8>(), 1..12)), 1..20),
        ) {
            let mut spans = BTreeMap::new();
            for (offset, bytes) in &writes {
                write_into(&mut spans, *offset, bytes);
            }
            prop_assert_eq!(spans, written(&writes));
        }
    }
}
