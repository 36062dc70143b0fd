//! A body on its way to where the receiver wants it.

use crate::link::Target;

/// How far a body has come.
pub(crate) struct Landing {
    target: Target,
    /// The part being filled, and how much of it is.
    part: usize,
    filled: usize,
    /// What is still to come, in bytes.
    remaining: u64,
}

impl Landing {
    /// # Panics
    ///
    /// If the destination is not exactly as long as the body.
    pub(crate) fn new(target: Target, body_len: u64) -> Self {
        if let Target::Memory(destination) = &target {
            let len: u64 = destination.parts().iter().map(|part| part.len as u64).sum();
            assert_eq!(len, body_len, "caller: gives a destination exactly as long as the body");
        }
        Self { target, part: 0, filled: 0, remaining: body_len }
    }

    /// Where the next bytes go, `None` for nowhere, and how many go there. `None` when all have come.
    pub(crate) fn next(&mut self) -> Option<(Option<*mut u8>, usize)> {
        if self.remaining == 0 {
            return None;
        }
        let Target::Memory(destination) = &self.target else {
            return Some((None, usize::try_from(self.remaining).unwrap_or(usize::MAX)));
        };
        loop {
            let part = destination.parts().get(self.part).expect("the parts are together as long as the body");
            if self.filled < part.len {
                // Wrapping: no claim about the memory, which is the destination's to make.
                return Some((Some(part.start.wrapping_add(self.filled)), part.len - self.filled));
            }
            self.part += 1;
            self.filled = 0;
        }
    }

    /// So many of the bytes that `next` announced have come.
    pub(crate) fn advance(&mut self, by: usize) {
        self.filled += by;
        self.remaining -= by as u64;
    }

    /// All places where bytes still go, in order; none if they go nowhere.
    pub(crate) fn places(&mut self) -> impl Iterator<Item = (*mut u8, usize)> {
        let parts = match &self.target {
            Target::Memory(destination) => &destination.parts()[self.part.min(destination.parts().len())..],
            Target::Discard => &[],
        };
        let filled = self.filled;
        let mut first = true;
        parts.iter().filter_map(move |part| {
            let skip = if std::mem::take(&mut first) { filled } else { 0 };
            (part.len > skip).then(|| (part.start.wrapping_add(skip), part.len - skip))
        })
    }

    /// So many bytes came to the places.
    pub(crate) fn pass(&mut self, mut count: usize) {
        while count > 0 {
            let (_, len) = self.next().expect("caller: passes not more than the places have room for");
            let step = len.min(count);
            self.advance(step);
            count -= step;
        }
    }

    /// What is still to come, in bytes.
    pub(crate) fn remaining(&self) -> u64 {
        self.remaining
    }

    pub(crate) fn into_target(self) -> Target {
        self.target
    }
}
