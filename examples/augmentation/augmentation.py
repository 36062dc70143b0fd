"""Image augmentation: each task changes a part of a picture that others use as well. With pydmrpc it writes into the array that it got:
only the pages that it writes are copied, and what it gives back shares the others. With Ray, whose arrays are read-only, it copies all first.

    python augmentation.py [--api ray] [photograph …]
"""

import argparse
import importlib
import pathlib
import time
import zlib

import numpy as np
from PIL import Image

PHOTOGRAPHS = pathlib.Path(__file__).resolve().parents[1] / "img_transcode" / "photos"
SIDE = 1024
VERSIONS = 8
# Rows of the part that is changed.
ROWS = 32


def own(picture):
    """The picture, to be written into."""
    return picture if picture.flags.writeable else picture.copy()


def augment(picture, version):
    """A band of the picture brightened, mirrored and covered with a square; where it is depends on the version."""
    picture = own(picture)
    band = picture[version * SIDE // VERSIONS :][:ROWS]
    band[:] = np.minimum(band.astype(np.uint16) + 16 * version, 255)[:, ::-1]
    band[: ROWS // 2, : ROWS // 2] = version
    return picture


class Augmentation:
    """The program on a system whose module is `ray`, or one like it."""

    def __init__(self, ray, paths=None):
        self.ray = ray
        self.pictures = []
        for path in paths or sorted(PHOTOGRAPHS.glob("*.jpg")):
            with Image.open(path) as picture:
                self.pictures.append(np.ascontiguousarray(picture.convert("RGB").resize((SIDE, SIDE))))
        self.augment = ray.remote(augment)

    def run(self):
        """All versions of all pictures."""
        references = [self.ray.put(picture) for picture in self.pictures]
        made = [self.augment.remote(reference, version) for reference in references for version in range(VERSIONS)]
        return self.ray.get(made)

    def check(self, found):
        """That they are what one process makes by itself; the same for every system."""
        expected = [augment(picture.copy(), version) for picture in self.pictures for version in range(VERSIONS)]
        assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
        return f"{len(found)} pictures, checksum {zlib.crc32(b''.join(np.ascontiguousarray(one) for one in found)):08x}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--api", default="pydmrpc", choices=["pydmrpc", "ray"])
    parser.add_argument("photographs", nargs="*", type=pathlib.Path)
    arguments = parser.parse_args()
    ray = importlib.import_module(arguments.api)
    ray.init()
    program = Augmentation(ray, arguments.photographs)
    begun = time.perf_counter()
    found = program.run()
    took = time.perf_counter() - begun
    print(f"{program.check(found)}; {len(found) / took:.0f} pictures/s")
    ray.shutdown()


if __name__ == "__main__":
    main()
