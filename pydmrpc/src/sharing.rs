//! How many pages two objects have in common.

use crate::objectref::ObjectRef;
use crate::wait::{Deadline, wait};
use dmrpc_objstore::AnyRef;
use dmrpc_pages::Extent;
use pyo3::prelude::*;
use std::sync::Arc;

/// The pages of an object, each once, in order of their places.
pub(crate) struct Pages(Vec<Extent>);

impl Pages {
    /// The pages that a reference's bytes lie in; none if they travel with it.
    pub(crate) fn of(py: Python<'_>, any: &AnyRef) -> PyResult<Self> {
        Ok(Self::new(wait(py, Deadline::NEVER, any.extents())?))
    }

    fn new(mut extents: Vec<Extent>) -> Self {
        extents.retain(|extent| !extent.is_hole());
        extents.sort_unstable_by_key(|extent| (extent.segment.0, extent.first));
        Self(extents)
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|extent| u64::from(extent.count)).sum()
    }

    /// How many pages both have.
    fn shared(&self, other: &Self) -> u64 {
        let end = |extent: &Extent| (extent.segment.0, u64::from(extent.first) + u64::from(extent.count));
        let (mut a, mut b, mut shared) = (0, 0, 0);
        while let (Some(mine), Some(theirs)) = (self.0.get(a), other.0.get(b)) {
            if mine.segment == theirs.segment {
                let from = mine.first.max(theirs.first);
                shared += end(mine).1.min(end(theirs).1).saturating_sub(from.into());
            }
            if end(mine) <= end(theirs) { a += 1 } else { b += 1 }
        }
        shared
    }
}

/// Pages of `a`, pages of `b`, and how many of them are the same; without `b`, of the object that `a` was made of.
#[pyfunction]
pub(crate) fn sharing(
    py: Python<'_>,
    a: &Bound<'_, ObjectRef>,
    b: Option<&Bound<'_, ObjectRef>>,
) -> PyResult<(u64, u64, u64)> {
    let pages_a = Pages::of(py, a.get().any(py)?)?;
    let pages_b = match b {
        Some(b) => Arc::new(Pages::of(py, b.get().any(py)?)?),
        None => match a.get().origin(py)? {
            Some(origin) => origin.clone(),
            None => return Ok((pages_a.count(), 0, 0)),
        },
    };
    Ok((pages_a.count(), pages_b.count(), pages_a.shared(&pages_b)))
}
