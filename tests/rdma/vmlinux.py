#!/usr/bin/env python3
"""Takes the kernel proper out of a bzImage, for an emulator that starts it without a boot loader: vmlinux.py BZIMAGE OUT"""

import gzip
import lzma
import struct
import subprocess
import sys

ELF = b"\x7fELF"


def payload(image: bytes) -> bytes:
    # Documentation/arch/x86/boot.rst: sectors of set-up code at 0x1f1, offset and length of the payload at 0x248.
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    return image[start : start + length]


def unpacked(data: bytes) -> bytes:
    # Behind the compressed stream stands its unpacked length, which no stream has.
    if data.startswith(b"\xfd7zX"):
        return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(data)
    if data.startswith(b"\x1f\x8b"):
        return gzip.decompress(data[:-4])
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        return subprocess.run(["zstd", "-dc"], input=data[:-4], stdout=subprocess.PIPE, check=True).stdout
    sys.exit(f"a kernel packed in a way that is not known here: it begins with {data[:6].hex()}")


def main() -> None:
    source, target = sys.argv[1:]
    with open(source, "rb") as file:
        kernel = unpacked(payload(file.read()))
    if not kernel.startswith(ELF):
        sys.exit(f"{source} has no kernel in it")
    with open(target, "wb") as file:
        file.write(kernel)


if __name__ == "__main__":
    main()
