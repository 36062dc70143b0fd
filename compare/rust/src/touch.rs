//! Writing into some pages of an object: what the worker of the copy-on-write benchmark does, whichever way it got the object.

use serde::{Deserialize, Serialize};

/// What a page is here, whatever the memory node's pages are.
pub(crate) const PAGE_BYTES: usize = 4096;

/// What is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Touch {
    /// Into so many pages, from the first on.
    pub(crate) pages: u32,
    /// So many bytes at the beginning of each.
    pub(crate) bytes: u32,
}

impl Touch {
    /// The byte that is written into a page.
    pub(crate) fn ink(page: u32) -> u8 {
        (page % 251) as u8 + 1
    }

    /// Where, and what: offset and bytes of each write.
    pub(crate) fn writes(self) -> impl Iterator<Item = (usize, Vec<u8>)> {
        let Self { pages, bytes } = self;
        (0..pages).map(move |page| (page as usize * PAGE_BYTES, vec![Self::ink(page); bytes as usize]))
    }

    /// What the worker answers: the sum of the first bytes of the pages that it wrote.
    pub(crate) fn answer(self, object: &[u8]) -> u64 {
        (0..self.pages as usize).map(|page| u64::from(object[page * PAGE_BYTES])).sum()
    }

    /// Writes into bytes that one has for oneself.
    pub(crate) fn stamp(self, object: &mut [u8]) {
        for page in 0..self.pages {
            object[page as usize * PAGE_BYTES..][..self.bytes as usize].fill(Self::ink(page));
        }
    }
}
