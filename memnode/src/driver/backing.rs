//! Where the memory of segments comes from: memfds of huge or ordinary pages, or ranges of one file or device. Segments that only
//! the node writes come from DPDK's memory where there is some, so that drivers send pages from where they are.
//!
//! 1. What was pre-faulted of a segment is allocated, stands in the page table of the node, and is zero.
//! 2. A memfd can neither grow nor shrink: a client that maps all of it never faults past its end.
//! 3. Ranges of a pool file don't overlap.

use super::config::{Hugepages, NodeConfig};
use super::error::NodeError;
use super::numa::NumaNode;
use super::segment::Segment;
use crate::core::Access;
use dmrpc_fabric::address::Address;
use dmrpc_fabric::cache_lines;
use dmrpc_fabric::datagram::dpdk::Reserved;
use dmrpc_fabric::memory;
use dmrpc_pages::{Buddy, ByteSize};
use dmrpc_wire::Coherence;
use rustix::fs::{FallocateFlags, FileType, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::mm::Advice;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

/// A huge page of the hardware, in bytes.
pub(crate) const HUGE_BYTES: u64 = 2 << 20;

/// Where the memory of segments comes from.
pub(crate) struct Backing {
    source: Source,
    numa: Option<NumaNode>,
    lent: Option<Lent>,
    coherence: Coherence,
}

/// Memory of DPDK's, and which of it is taken.
struct Lent {
    memory: Arc<Reserved>,
    file: Arc<OwnedFd>,
    /// Segments begin at multiples of this: else nobody could map them.
    granule_bytes: u64,
    ranges: Buddy,
}

enum Source {
    /// A memfd for each segment.
    Memfd(Pages),
    /// A range for each segment.
    File { file: Arc<OwnedFd>, granule_bytes: u64, ranges: Buddy, device: bool },
}

/// What pages a memfd is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pages {
    /// Huge pages that were set aside.
    Reserved,
    /// Ordinary memory, in pieces of huge pages where the kernel finds some.
    Transparent,
    /// Ordinary pages.
    Ordinary,
}

impl Backing {
    /// What the configuration asks for, if this host has it.
    pub(crate) fn open(config: &NodeConfig) -> Result<Self, NodeError> {
        check_coherence(config)?;
        let numa = config.numa_node.map(NumaNode::find).transpose()?;
        let source = match &config.pool_file {
            Some(path) => open_file(path, config)?,
            None => Source::Memfd(choose_pages(config)?),
        };
        let speaks_dpdk = config.listen.iter().any(|address| matches!(address, Address::Dpdk(_)));
        let lent = if speaks_dpdk && config.pool_file.is_none() { Some(Lent::reserve(config)?) } else { None };
        Ok(Self { source, numa, lent, coherence: config.coherence })
    }

    /// Whether segments that only the node writes are ready at once: their memory is there already.
    pub(crate) fn lends(&self) -> bool {
        self.lent.is_some()
    }

    /// Segments are multiples of this, in bytes.
    pub(crate) fn granule_bytes(&self) -> u64 {
        match self.source {
            Source::Memfd(Pages::Reserved) => HUGE_BYTES,
            Source::Memfd(_) => 1,
            Source::File { granule_bytes, .. } => granule_bytes,
        }
    }

    /// Begins a segment: all of it is mapped, and none of it is there before [`Backing::prefault`].
    pub(crate) fn begin(&mut self, bytes: u64, access: Access) -> io::Result<Segment> {
        if access == Access::Node
            && let Some(segment) = self.lent.as_mut().and_then(|lent| lent.begin(bytes))
        {
            return Ok(segment);
        }
        let segment = match &mut self.source {
            Source::Memfd(pages) => Segment::map(Arc::new(sealed_memfd(*pages, bytes)?), 0, bytes as usize, true)?,
            Source::File { file, granule_bytes, ranges, .. } => {
                let granules = u32::try_from(bytes.div_ceil(*granule_bytes)).map_err(|_| out_of_memory())?;
                let first = ranges.alloc(granules).ok_or_else(out_of_memory)?;
                let offset = u64::from(first) * *granule_bytes;
                let segment = Segment::map(Arc::clone(file), offset, bytes as usize, false).inspect_err(|_| {
                    ranges.free(first, granules).expect("the range was just taken");
                })?;
                segment.flushed(self.coherence == Coherence::Flush)
            }
        };
        if let Some(numa) = self.numa {
            numa.bind(&segment).inspect_err(|_| self.unmake(&segment))?;
        }
        Ok(segment)
    }

    /// Makes `length` bytes of a new segment from `offset` on present and zero.
    ///
    /// What takes long in it does not hold the lock on the address space of the process, which the loop would wait for
    /// whenever it allocates: pages of a memfd are allocated by writing to the file, and only mapped by `populate`, in pieces.
    pub(crate) fn prefault(&self, segment: &Segment, offset: u64, length: u64) -> io::Result<()> {
        if segment.reserved_start().is_some() {
            segment.copy_from(offset, None, length);
            return Ok(());
        }
        match self.source {
            Source::Memfd(Pages::Reserved) => populate(segment, offset, length),
            Source::Memfd(pages) => {
                let collapsed = pages == Pages::Transparent && collapse(segment, offset, length)?;
                let rest = if collapsed { length % HUGE_BYTES } else { length };
                segment.write_zeros(offset + length - rest, rest)?;
                populate(segment, offset, length)
            }
            // What was there before is another's; writing zeros is also what makes the pages present.
            Source::File { .. } => {
                segment.copy_from(offset, None, length);
                Ok(())
            }
        }
    }

    /// Takes a segment back whose memory nobody uses any more, and that is about to be dropped.
    pub(crate) fn unmake(&mut self, segment: &Segment) {
        if let (Some(start), Some(lent)) = (segment.reserved_start(), &mut self.lent) {
            return lent.unmake(start, segment.bytes());
        }
        segment.unmap_pages(HUGE_BYTES);
        if let Source::File { granule_bytes, ranges, .. } = &mut self.source {
            let first = (segment.file_offset() / *granule_bytes) as u32;
            let granules = (segment.bytes() as u64).div_ceil(*granule_bytes) as u32;
            ranges.free(first, granules).expect("the segment was made here, once");
        }
    }
}

impl Lent {
    /// As much as the pool.
    fn reserve(config: &NodeConfig) -> Result<Self, NodeError> {
        let failed = |source| NodeError::Dpdk { pool: ByteSize(config.pool_bytes), source };
        let memory = Reserved::new("dmrpc_pool", config.pool_bytes as usize, config.numa_node).map_err(failed)?;
        let file = memory.file().0.try_clone().map_err(NodeError::io("duplicating a descriptor"))?;
        let granule_bytes = memory::granule_bytes(&file).map_err(NodeError::io("looking at DPDK's memory"))?;
        let granule_bytes = granule_bytes.max(config.page_size.bytes());
        let granules = u32::try_from(config.pool_bytes / granule_bytes)
            .map_err(|_| NodeError::Config("the pool has too many pages: use larger ones"))?;
        Ok(Self { memory: Arc::new(memory), file: Arc::new(file), granule_bytes, ranges: Buddy::new(granules) })
    }

    /// A segment, if there is room for it in one piece.
    fn begin(&mut self, bytes: u64) -> Option<Segment> {
        let first = self.ranges.alloc(u32::try_from(bytes.div_ceil(self.granule_bytes)).ok()?)?;
        let start = (u64::from(first) * self.granule_bytes) as usize;
        Some(Segment::reserved(Arc::clone(&self.file), Arc::clone(&self.memory), start, bytes as usize))
    }

    fn unmake(&mut self, start: usize, bytes: usize) {
        let first = (start as u64 / self.granule_bytes) as u32;
        let granules = (bytes as u64).div_ceil(self.granule_bytes) as u32;
        self.ranges.free(first, granules).expect("the segment was made here, once");
    }
}

/// For people: what the memory is.
impl fmt::Display for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lent.is_some() {
            f.write_str("dpdk+")?;
        }
        f.write_str(match self.source {
            Source::Memfd(Pages::Reserved) => "hugetlb",
            Source::Memfd(Pages::Transparent) => "memfd+thp",
            Source::Memfd(Pages::Ordinary) => "memfd",
            Source::File { device: false, .. } => "file",
            Source::File { device: true, .. } => "device",
        })
    }
}

fn choose_pages(config: &NodeConfig) -> Result<Pages, NodeError> {
    if config.hugepages == Hugepages::Require {
        let wanted = config.pool_bytes.div_ceil(HUGE_BYTES);
        let free = free_huge_pages()?;
        if free < wanted {
            return Err(NodeError::NoHugepages { wanted, free, size: ByteSize(HUGE_BYTES) });
        }
        return Ok(Pages::Reserved);
    }
    let most = memory_total()?;
    if config.pool_bytes > most {
        let (what, most) = ("the memory of this host", most >> 20 << 20);
        return Err(NodeError::PoolTooLarge { pool: ByteSize(config.pool_bytes), what, most: ByteSize(most) });
    }
    Ok(if config.hugepages == Hugepages::Auto { Pages::Transparent } else { Pages::Ordinary })
}

/// Free huge pages of [`HUGE_BYTES`], less those that are promised to others.
fn free_huge_pages() -> Result<u64, NodeError> {
    let figure = |name: &str| {
        let path = format!("/sys/kernel/mm/hugepages/hugepages-{}kB/{name}", HUGE_BYTES >> 10);
        match fs::read_to_string(path) {
            Ok(text) => Ok(text.trim().parse::<u64>().unwrap_or(0)),
            // A kernel without them.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(NodeError::io("reading how many huge pages are free")(error)),
        }
    };
    Ok(figure("free_hugepages")?.saturating_sub(figure("resv_hugepages")?))
}

/// The memory of this host, in bytes.
fn memory_total() -> Result<u64, NodeError> {
    let info = fs::read_to_string("/proc/meminfo").map_err(NodeError::io("reading how much memory there is"))?;
    let kib = info.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.map(|kib: u64| kib << 10).ok_or(NodeError::Config("/proc/meminfo does not say how much memory there is"))
}

fn sealed_memfd(pages: Pages, bytes: u64) -> io::Result<OwnedFd> {
    let mut flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    if pages == Pages::Reserved {
        flags |= MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
    }
    let fd = rustix::fs::memfd_create("dmrpc-segment", flags)?;
    rustix::fs::ftruncate(&fd, bytes)?;
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW)?;
    Ok(fd)
}

/// Makes the whole huge pages of a piece of a fresh segment present as such. `false` if the kernel can't: then some are.
///
/// `MADV_HUGEPAGE` alone does nothing where `shmem_enabled` is `never`, which is what Linux comes with. `MADV_COLLAPSE` works
/// there too, on ranges that have a page already: write one in each, and the kernel fills the rest of a huge page with zeros.
/// A client that then maps the segment takes one fault where it would take 512.
fn collapse(segment: &Segment, offset: u64, length: u64) -> io::Result<bool> {
    let whole = length / HUGE_BYTES * HUGE_BYTES;
    let start = segment.at(offset, whole);
    if whole == 0 || start.align_offset(HUGE_BYTES as usize) != 0 {
        return Ok(false);
    }
    for at in (0..whole).step_by(HUGE_BYTES as usize) {
        segment.write_zeros(offset + at, 1)?;
    }
    // SAFETY: advice on a part of a mapping of ours, which changes no byte of it.
    let result = unsafe { libc::madvise(start.cast(), whole as usize, libc::MADV_COLLAPSE) };
    if result != 0 {
        tracing::debug!("no huge pages for {whole} bytes of a segment: {}", io::Error::last_os_error());
    }
    Ok(result == 0)
}

/// Maps what is there, in pieces.
fn populate(segment: &Segment, offset: u64, length: u64) -> io::Result<()> {
    for at in (0..length).step_by(HUGE_BYTES as usize) {
        let piece = HUGE_BYTES.min(length - at);
        let start = segment.at(offset + at, piece).cast();
        // SAFETY: advice on a part of a mapping of ours, which changes no byte of it.
        unsafe { rustix::mm::madvise(start, piece as usize, Advice::LinuxPopulateWrite)? };
    }
    Ok(())
}

fn out_of_memory() -> io::Error {
    io::ErrorKind::OutOfMemory.into()
}

/// Whether what is asked for can be kept up here.
fn check_coherence(config: &NodeConfig) -> Result<(), NodeError> {
    if config.coherence == Coherence::Hardware {
        return Ok(());
    }
    if config.pool_file.is_none() {
        return Err(NodeError::Config("only a pool file can be one that no hardware keeps coherent"));
    }
    if !cache_lines::is_supported() {
        return Err(NodeError::Config("this processor has no instructions for programs to write cache lines back"));
    }
    // What a device writes may stay in the caches of its host.
    if config.listen.iter().any(|address| matches!(address, Address::Rdma { .. })) {
        return Err(NodeError::Config("a pool file that no hardware keeps coherent can't be reached over RDMA"));
    }
    Ok(())
}

fn open_file(path: &Path, config: &NodeConfig) -> Result<Source, NodeError> {
    let failed = |doing| {
        let path = path.to_owned();
        move |source: io::Error| NodeError::PoolFile { path, doing, source }
    };
    if config.tenant_tokens.len() > 1 {
        return Err(NodeError::Config("a pool file has one tenant: who can open a part of it can read all of it"));
    }
    if config.hugepages == Hugepages::Require {
        return Err(NodeError::Config("a pool file has the pages that it has: leave out --hugepages require"));
    }
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(|e| failed("opening it")(e.into()))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|e| failed("locking it (does another node use it?)")(e.into()))?;
    let stat = rustix::fs::fstat(&file).map_err(|e| failed("looking at it")(e.into()))?;
    let (granule_bytes, device) = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, config.pool_bytes)
                .map_err(|e| failed("allocating the pool in it")(e.into()))?;
            let granule_bytes = memory::granule_bytes(&file).map_err(failed("looking at its pages"))?;
            (granule_bytes.max(config.page_size.bytes()), false)
        }
        FileType::CharacterDevice => {
            let dax = DaxDevice::find(stat.st_rdev).map_err(failed("asking the kernel what device it is"))?;
            if dax.bytes < config.pool_bytes {
                let (pool, most) = (ByteSize(config.pool_bytes), ByteSize(dax.bytes));
                return Err(NodeError::PoolTooLarge { pool, what: "the device", most });
            }
            (dax.align_bytes.max(config.page_size.bytes()), true)
        }
        _ => return Err(NodeError::Config("a pool file is a regular file or a /dev/dax device")),
    };
    let granules = u32::try_from(config.pool_bytes / granule_bytes)
        .map_err(|_| NodeError::Config("the pool has too many pages: use larger ones"))?;
    Ok(Source::File { file: Arc::new(file), granule_bytes, ranges: Buddy::new(granules), device })
}

/// A `/dev/dax` device, as sysfs describes it.
struct DaxDevice {
    bytes: u64,
    align_bytes: u64,
}

impl DaxDevice {
    fn find(device: u64) -> io::Result<Self> {
        let folder = format!("/sys/dev/char/{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
        let figure = |name: &str| -> io::Result<u64> {
            let text = fs::read_to_string(format!("{folder}/{name}"))?;
            text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
        };
        Ok(Self { bytes: figure("size")?, align_bytes: figure("align")? })
    }
}
