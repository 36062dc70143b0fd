//! Which pages of a private mapping were written: those are no longer the file's, but anonymous.
//!
//! The kernel says so by `PAGEMAP_SCAN` (Linux 6.7) in one call, or entry by entry in `/proc/self/pagemap`.

use crate::StoreError;
use rustix::fs::{Mode, OFlags, open};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};
use std::ffi::c_void;
use std::ops::Range;
use std::os::fd::OwnedFd;

/// `PAGE_IS_*` of the kernel's `linux/fs.h`.
const FILE: u64 = 1 << 2;
const PRESENT: u64 = 1 << 3;
const SWAPPED: u64 = 1 << 4;
const ZERO: u64 = 1 << 5;

/// `struct pm_scan_arg`.
#[repr(C)]
struct ScanArguments {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    regions: u64,
    regions_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

const _: () = assert!(size_of::<ScanArguments>() == 96);

/// `struct page_region`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

struct Scan<'a>(&'a mut ScanArguments);

// SAFETY: `PAGEMAP_SCAN` reads and writes the arguments, whose layout is the kernel's, and the regions that they point to.
unsafe impl Ioctl for Scan<'_> {
    type Output = usize;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        opcode::read_write::<ScanArguments>(b'f', 16)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        (&raw mut *self.0).cast()
    }

    unsafe fn output_from_ptr(output: IoctlOutput, _: *mut c_void) -> rustix::io::Result<usize> {
        Ok(usize::try_from(output).unwrap_or(0))
    }
}

/// The pages that were written of the mapping of `len` bytes at `start`, as ranges of its bytes, ascending.
///
/// # Errors
///
/// [`StoreError::Io`] if `/proc` is not there.
pub(crate) fn written(start: *const u8, len: usize) -> Result<Vec<Range<u64>>, StoreError> {
    let failed =
        |error: rustix::io::Errno| StoreError::Io { doing: "looking for written pages", why: error.to_string() };
    let pagemap = open("/proc/self/pagemap", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    scan(&pagemap, start as u64, len as u64).or_else(|_| walk(&pagemap, start as u64, len as u64)).map_err(failed)
}

fn scan(pagemap: &OwnedFd, start: u64, len: u64) -> rustix::io::Result<Vec<Range<u64>>> {
    let mut regions = [Region::default(); 256];
    let mut found = Vec::new();
    let (mut at, end) = (start, start + len);
    while at < end {
        let mut arguments = ScanArguments {
            size: size_of::<ScanArguments>() as u64,
            flags: 0,
            start: at,
            end,
            walk_end: 0,
            regions: regions.as_mut_ptr() as u64,
            regions_len: regions.len() as u64,
            max_pages: 0,
            category_inverted: FILE | ZERO,
            category_mask: FILE | ZERO,
            category_anyof_mask: PRESENT | SWAPPED,
            return_mask: PRESENT | SWAPPED,
        };
        // SAFETY: the arguments describe themselves and `regions`, both of which live longer than the call.
        let count = unsafe { ioctl(pagemap, Scan(&mut arguments)) }?;
        for region in &regions[..count.min(regions.len())] {
            push(&mut found, region.start - start..region.end - start);
        }
        if arguments.walk_end <= at {
            break;
        }
        at = arguments.walk_end;
    }
    Ok(found)
}

fn walk(pagemap: &OwnedFd, start: u64, len: u64) -> rustix::io::Result<Vec<Range<u64>>> {
    let page = rustix::param::page_size() as u64;
    let mut found = Vec::new();
    let mut entries = [0u8; 4096];
    let (mut at, pages) = (0, len / page);
    while at < pages {
        let wanted = ((pages - at) * 8).min(entries.len() as u64) as usize;
        let got = rustix::io::pread(pagemap, &mut entries[..wanted], (start / page + at) * 8)?;
        if got < 8 {
            return Err(rustix::io::Errno::IO);
        }
        for entry in entries[..got].chunks_exact(8) {
            let entry = u64::from_le_bytes(entry.try_into().expect("eight bytes"));
            // Present or swapped, and not of a file.
            if entry >> 62 != 0 && entry >> 61 & 1 == 0 {
                push(&mut found, at * page..(at + 1) * page);
            }
            at += 1;
        }
    }
    Ok(found)
}

fn push(found: &mut Vec<Range<u64>>, range: Range<u64>) {
    match found.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => found.push(range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

    #[test]
    fn both_ways_find_what_was_written() {
        let page = rustix::param::page_size();
        let len = 600 * page;
        let file = memfd_create("dirty", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, len as u64).unwrap();
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping of a file of that length.
        let start = unsafe { mmap(std::ptr::null_mut(), len, protection, MapFlags::PRIVATE, &file, 0) }.unwrap();
        let start = start.cast::<u8>();
        // SAFETY: within the mapping, which is ours alone.
        let bytes = unsafe { std::slice::from_raw_parts_mut(start, len) };
        let read: u8 = bytes.iter().step_by(page).copied().sum();
        assert_eq!(read, 0);
        for dirty in [0, 3, 4, 599] {
            bytes[dirty * page + 7] = 1;
        }
        // Many runs, so that one call does not bring them all.
        (10..590).step_by(2).for_each(|dirty| bytes[dirty * page] = 1);
        let page = page as u64;
        let mut expected = vec![0..page, 3 * page..5 * page];
        expected.extend((10..590).step_by(2).map(|dirty| dirty * page..(dirty + 1) * page));
        expected.push(599 * page..600 * page);
        let pagemap = open("/proc/self/pagemap", OFlags::RDONLY, Mode::empty()).unwrap();
        assert_eq!(walk(&pagemap, start as u64, len as u64).unwrap(), expected);
        match scan(&pagemap, start as u64, len as u64) {
            Ok(found) => assert_eq!(found, expected),
            Err(error) => assert!(matches!(error, rustix::io::Errno::NOTTY | rustix::io::Errno::INVAL), "{error}"),
        }
        // SAFETY: mapped above, and not looked at any more.
        unsafe { munmap(start.cast(), len) }.unwrap();
    }
}
