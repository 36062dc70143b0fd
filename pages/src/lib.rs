//! Runs of pages: what they are called, how large a page is, and who has which.
//!
//! The memory node hands out the pages of its segments with these types, and a client the pages of its arena. There is no
//! memory in here, only arithmetic on page numbers: every type is plain data that can be tested, copied and compared.
//!
//! | file | noun |
//! | --- | --- |
//! | `extent.rs` | [`Extent`]: a run of adjacent pages in one segment, or a hole |
//! | `page_size.rs` | [`PageSize`]: the unit of copy-on-write |
//! | `byte_size.rs` | [`ByteSize`]: `64MiB` as people write it |
//! | `buddy.rs` | [`Buddy`]: which pages of a segment are free, and where the next run comes from |
//! | `bitmap.rs` | the bitmap under it, whose first set bit is found without a scan |
//! | `runs.rs` | [`RunSet`]: a set of disjoint runs |
#![forbid(unsafe_code)]

mod bitmap;
mod buddy;
mod byte_size;
mod extent;
mod page_size;
mod runs;

pub use buddy::{Buddy, BuddyError};
pub use byte_size::{ByteSize, ByteSizeError};
pub use extent::{Extent, SegmentId};
pub use page_size::{PageSize, PageSizeError};
pub use runs::{RunSet, RunSetError};
