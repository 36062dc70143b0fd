//! Which memory of the host segments are made of.

use super::error::NodeError;
use super::segment::Segment;
use std::{fs, io};

/// A NUMA node that is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NumaNode(u32);

/// The highest number of a node that fits the mask given to the kernel.
const MAX_NODE: u32 = 63;

impl NumaNode {
    /// The node with this number, if the host has it.
    pub(crate) fn find(node: u32) -> Result<Self, NodeError> {
        let present = fs::read_to_string("/sys/devices/system/node/has_memory")
            .map_err(NodeError::io("reading which NUMA nodes there are"))?;
        let present = present.trim();
        if node > MAX_NODE || !contains(present, node) {
            return Err(NodeError::Numa { node, present: present.to_owned() });
        }
        Ok(Self(node))
    }

    /// Lets the pages of `segment` be allocated on this node only.
    pub(crate) fn bind(self, segment: &Segment) -> io::Result<()> {
        let mask = 1u64 << self.0;
        // SAFETY: the range is a mapping of ours, and the mask is as long as the call is told (the kernel wants one more than
        // the number of its bits).
        let result = unsafe {
            libc::syscall(
                libc::SYS_mbind,
                segment.base(),
                segment.bytes(),
                libc::MPOL_BIND,
                &raw const mask,
                u64::from(u64::BITS) + 1,
                0,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// Whether a list as the kernel writes it (`0-1,3`) has `node`.
fn contains(list: &str, node: u32) -> bool {
    list.split(',').any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        first.parse().is_ok_and(|first: u32| first <= node) && last.parse().is_ok_and(|last: u32| node <= last)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_nodes() {
        assert!(contains("0", 0) && !contains("0", 1));
        assert!(contains("0-1,3", 1) && contains("0-1,3", 3) && !contains("0-1,3", 2));
        assert!(!contains("", 0));
    }

    #[test]
    fn a_node_that_is_not_there_is_named() {
        let error = NumaNode::find(63).expect_err("no host of ours has 64 nodes");
        assert!(error.to_string().contains("no NUMA node 63"), "{error}");
    }
}
