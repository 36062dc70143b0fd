"""Writing into some pages of an object: what the worker of the copy-on-write benchmark does. The twin of `compare/rust/src/touch.rs`."""

import zlib

PAGE_BYTES = 4096


def stamp(array, pages, size):
    """Writes `size` bytes at the beginning of the first `pages` pages."""
    for page in range(pages):
        array[page * PAGE_BYTES : page * PAGE_BYTES + size] = page % 251 + 1


def answer(array, pages):
    """The sum of the first bytes of the pages that were written."""
    return int(array[: pages * PAGE_BYTES : PAGE_BYTES].sum())


def touch(array, pages, size, check):
    """Writes into an array that one has for oneself; the sum, and the checksum of all if that is asked for."""
    stamp(array, pages, size)
    return answer(array, pages), f"{zlib.crc32(array):08x}" if check else None
