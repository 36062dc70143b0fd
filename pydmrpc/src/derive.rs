//! Storing what came from the store: only the pages that were written since are new, all others are shared.
//!
//! 1. What is stored has the bytes that a plain copy would have, where a value's parts are.
//! 2. It is tried only where it pays: [`MIN_BYTES`], and no more than half of the pages written.

use crate::encode::Plan;
use crate::errors;
use crate::foreign;
use crate::region::{self, Changes, Region};
use crate::sharing::Pages;
use crate::stored::PYTHON_VALUE;
use crate::wait::{Deadline, wait, wait_for};
use dmrpc_objstore::{AnyRef, Edit, StoreError};
use pyo3::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// The least bytes in buffers for which it is tried: smaller arrays are copies anyhow.
const MIN_BYTES: usize = 64 * 1024;

/// The object that `plan` describes, made out of the object that its buffers come from, and the pages of that; `None` if they
/// come from none, or if it does not pay.
pub(crate) fn derive(py: Python<'_>, plan: &Plan<'_>) -> PyResult<Option<(AnyRef, Arc<Pages>)>> {
    let Some(region) = source(plan) else { return Ok(None) };
    let Some(changes) = region.changes() else { return Ok(None) };
    let Changes { base, dirty } = changes.map_err(|error| errors::of_store(py, &error))?;
    let writes = writes(plan, &region, &dirty);
    let changed: usize = writes.iter().map(|write| write.range.len()).sum();
    if changed > plan.layout.total / 2 {
        return Ok(None);
    }
    let mut tail = vec![0; plan.layout.total - plan.tail_start()];
    plan.write_tail(&mut tail);
    let same_tail = base.byte_len() == plan.layout.total as u64 && {
        let mut there = vec![0; tail.len()];
        wait(py, Deadline::NEVER, base.read(plan.tail_start() as u64, &mut there))?;
        there == tail
    };
    let origin = Arc::new(Pages::of(py, &base)?);
    if writes.is_empty() && same_tail {
        return Ok(Some((base, origin)));
    }
    let mut edit = wait(py, Deadline::NEVER, base.edit())?;
    let (total, tail_start) = (plan.layout.total as u64, plan.tail_start() as u64);
    let written = py.detach(|| {
        if edit.len() != total {
            edit.resize(total)?;
        }
        for write in &writes {
            write.apply(&mut edit)?;
        }
        if !same_tail {
            edit.write(tail_start, &tail)?;
        }
        Ok(())
    });
    written.map_err(|error: StoreError| errors::of_store(py, &error))?;
    Ok(Some((wait(py, Deadline::NEVER, edit.commit())?.into_any(), origin)))
}

/// The object that `plan` describes, if its bytes are in memory that was allocated in the store for it: nothing is copied.
pub(crate) fn seal(py: Python<'_>, plan: &Plan<'_>) -> PyResult<Option<AnyRef>> {
    let Some(region) = source(plan).filter(|_| plan.kind.has_payload()) else { return Ok(None) };
    let mut tail = vec![0; plan.layout.total - plan.tail_start()];
    plan.write_tail(&mut tail);
    let sealed = wait_for(py, Deadline::NEVER, region.seal(plan.layout.total, &tail, PYTHON_VALUE))?;
    sealed.transpose().map_err(|error| errors::of_store(py, &error))
}

/// The region that the plan's largest buffer lies in, at the place that the plan gives it.
fn source(plan: &Plan<'_>) -> Option<Arc<Region>> {
    let (address, place, len) = plan.buffers().max_by_key(|(_, _, len)| *len)?;
    let region = (len >= MIN_BYTES).then(|| region::find(address, len))??;
    (address - region.address() == place).then_some(region)
}

/// A range of the new object that differs from the base.
struct Write {
    range: Range<usize>,
    /// Where its bytes are.
    address: usize,
}

fn writes(plan: &Plan<'_>, region: &Region, dirty: &[Range<u64>]) -> Vec<Write> {
    let mut writes = Vec::new();
    for (address, place, len) in plan.buffers() {
        let range = place..place + len;
        if address.checked_sub(region.address()) != Some(place) || range.end > region.len() {
            writes.push(Write { range, address });
            continue;
        }
        for dirty in dirty {
            let start = (dirty.start as usize).max(range.start);
            let end = (dirty.end as usize).min(range.end);
            if start < end {
                writes.push(Write { range: start..end, address: address + (start - place) });
            }
        }
    }
    writes
}

impl Write {
    fn apply(&self, edit: &mut Edit) -> Result<(), StoreError> {
        // SAFETY: the range lies in a buffer that the plan has exported, which stays where it is, and readable, until the plan ends.
        unsafe {
            foreign::in_pieces(self.address, self.range.len(), |at, piece| {
                edit.write((self.range.start + at) as u64, piece)
            })
        }
    }
}
