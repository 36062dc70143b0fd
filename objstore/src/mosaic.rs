//! Pages from several places, mapped side by side.

use crate::StoreError;
use crate::layout::Piece;
use dmrpc_pages::PageSize;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// The most pieces of a mosaic. Each is a mapping of its own, of which a process may have 65,530 by default.
pub(crate) const MAX_PIECES: usize = 1024;

/// Pages side by side: read-only, or private copies on writing. Unmapped on drop.
pub(crate) struct Mosaic {
    start: *mut u8,
    len: usize,
}

// SAFETY: it is an address; who reads or writes there answers for it.
unsafe impl Send for Mosaic {}
// SAFETY: as above.
unsafe impl Sync for Mosaic {}

impl Mosaic {
    /// Maps the pieces one after the other. Holes are zeros.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooLarge`] with too many pieces, [`StoreError::Io`] if the kernel does not want to, or would map more than it
    /// is asked for: memory of huge pages that were set aside can't be mapped in smaller ones.
    pub(crate) fn of(pieces: &[Piece], page_size: PageSize, private: bool) -> Result<Self, StoreError> {
        if pieces.len() > MAX_PIECES {
            let (len, limit) = (pieces.len() as u64, MAX_PIECES as u64);
            return Err(StoreError::TooLarge { what: "number of pieces", len, limit });
        }
        let failed = |error: rustix::io::Errno| StoreError::Io { doing: "mapping pages", why: error.to_string() };
        if !pieces.iter().all(Piece::has_single_pages) {
            return Err(failed(rustix::io::Errno::INVAL));
        }
        let pages: u64 = pieces.iter().map(|piece| u64::from(piece.extent.count)).sum();
        let len = usize::try_from(pages << page_size.shift()).map_err(|_| StoreError::Malformed("too many pages"))?;
        let (protection, sharing) = if private {
            (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE)
        } else {
            (ProtFlags::READ, MapFlags::SHARED)
        };
        // The holes, and the place for the rest.
        let anonymous = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let start =
            unsafe { mmap_anonymous(std::ptr::null_mut(), len.max(1), protection, anonymous) }.map_err(failed)?;
        let mosaic = Self { start: start.cast(), len };
        mosaic.lay(pieces, page_size, protection, sharing).map_err(failed)?;
        Ok(mosaic)
    }

    /// A mapping that somebody made; from now on it is this one's.
    pub(crate) fn adopt(start: *mut u8, len: usize) -> Self {
        Self { start, len }
    }

    /// Maps the pieces, privately, where it is. They are together as long.
    ///
    /// # Errors
    ///
    /// As [`of`](Mosaic::of).
    pub(crate) fn replace(self, pieces: &[Piece], page_size: PageSize) -> Result<Self, StoreError> {
        let pages: u64 = pieces.iter().map(|piece| u64::from(piece.extent.count)).sum();
        assert_eq!(pages << page_size.shift(), self.len as u64, "the pieces are the same pages");
        let (protection, sharing) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
        let laid = self.lay(pieces, page_size, protection, sharing);
        laid.map_err(|error| StoreError::Io { doing: "mapping pages", why: error.to_string() })?;
        Ok(self)
    }

    fn lay(
        &self,
        pieces: &[Piece],
        page_size: PageSize,
        protection: ProtFlags,
        sharing: MapFlags,
    ) -> rustix::io::Result<()> {
        let mut at = 0;
        for piece in pieces {
            let len = (piece.extent.count as usize) << page_size.shift();
            if let Some((file, offset)) = piece.file() {
                // SAFETY: within our own mapping.
                let target = unsafe { self.start.add(at) };
                // SAFETY: as above: only our own mapping is replaced, by memory of the same length. Nobody has references into it:
                // it is new, or was only used by address.
                unsafe { mmap(target.cast(), len, protection, sharing | MapFlags::FIXED, file, offset) }?;
            }
            at += len;
        }
        Ok(())
    }

    pub(crate) fn start(&self) -> *mut u8 {
        self.start
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mosaic {
    fn drop(&mut self) {
        // SAFETY: mapped by us, with all that was put into it; an address is valid as long as the mosaic lives.
        let _ = unsafe { munmap(self.start.cast(), self.len.max(1)) };
    }
}
