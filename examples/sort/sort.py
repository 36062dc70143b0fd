"""Sorts records by a shuffle: tasks split their part of the records by ranges of keys, and tasks sort all records of one range.

    python sort.py [--api ray] [--records 1000000]
"""

import argparse
import importlib
import time

import numpy as np

MAPPERS, REDUCERS = 8, 8
RECORDS = 100_000

# As the sort benchmark (sortbenchmark.org) has them: keys, and what belongs to them.
RECORD = np.dtype([("key", ">u8"), ("number", "<u8"), ("rest", "V84")])


def records(count, first):
    """Records `first`, `first` + 1, …, whose keys have no order."""
    made = np.zeros(count, RECORD)
    made["number"] = np.arange(first, first + count)
    keys = (made["number"] + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    made["key"] = keys ^ (keys >> np.uint64(29))
    return made


def split(part):
    """The records of each range of keys."""
    ranges = (part["key"] >> np.uint64(32)) * np.uint64(REDUCERS) >> np.uint64(32)
    order = np.argsort(ranges, kind="stable")
    ends = np.searchsorted(ranges[order], np.arange(1, REDUCERS))
    return np.split(part[order], ends)


def merge(*parts):
    """All records of one range, in order."""
    together = np.concatenate(parts)
    return together[np.argsort(together["key"], kind="stable")]


def all_parts(total):
    """So many records in the parts that mappers get."""
    share = -(-total // MAPPERS)
    return [records(min(share, total - first), first) for first in range(0, total, share)]


def check(total, found):
    """That all records are there, in order; what is said of them is the same for every system."""
    keys = np.concatenate([part["key"] for part in found]).astype("<u8")
    numbers = np.concatenate([part["number"] for part in found])
    assert (keys[1:] >= keys[:-1]).all()
    assert np.array_equal(np.sort(numbers), np.arange(total))
    return f"{len(keys)} records, key in the middle {keys[len(keys) // 2]:016x}"


class Sort:
    """The program on a system whose module is `ray`, or one like it."""

    def __init__(self, ray, count=RECORDS):
        self.ray, self.total = ray, count
        self.split = ray.remote(num_returns=REDUCERS)(split)
        self.merge = ray.remote(merge)
        self.parts = all_parts(count)

    def run(self):
        """The records of each range, in order."""
        split = [self.split.remote(self.ray.put(part)) for part in self.parts]
        merged = [self.merge.remote(*(ranges[n] for ranges in split)) for n in range(REDUCERS)]
        return self.ray.get(merged)

    def check(self, found):
        """What they are, if they are right."""
        return check(self.total, found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--api", default="pydmrpc", choices=["pydmrpc", "ray"])
    parser.add_argument("--records", type=int, default=1_000_000)
    arguments = parser.parse_args()
    ray = importlib.import_module(arguments.api)
    ray.init()
    program = Sort(ray, arguments.records)
    begun = time.perf_counter()
    found = program.run()
    took = time.perf_counter() - begun
    print(f"{program.check(found)}, in {took:.3f} s: {arguments.records * RECORD.itemsize / took / 1e6:.0f} MB/s")
    ray.shutdown()


if __name__ == "__main__":
    main()
