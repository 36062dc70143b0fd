"""Counts words by map and reduce: tasks count parts of a text, and add up what belongs to one range of words.

    python word_count.py [--api ray] [folder]
"""

import argparse
import collections
import importlib
import pathlib
import re
import time
import zlib

MAPPERS, REDUCERS = 8, 4
WORD = re.compile(rb"[a-z']+")

# Text that is there: this project's own documentation and sources.
FOLDER = pathlib.Path(__file__).resolve().parents[2]
ENDINGS = (".md", ".rs", ".py")
LEFT_OUT = {"target", "out", "report"}


def text_of(folder):
    """All texts below a folder, one after the other."""
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in ENDINGS and not any(part in LEFT_OUT or part.startswith(".") for part in path.relative_to(folder).parts)
    )
    return b"\n".join(path.read_bytes() for path in paths)


def parts(text, count):
    """The text in so many parts, cut between words."""
    start = 0
    for n in range(1, count + 1):
        end = len(text) if n == count else max(start, text.find(b"\n", n * len(text) // count))
        yield text[start:end]
        start = end


def reducer_of(word):
    return zlib.crc32(word) % REDUCERS


def count(text):
    """A counter for each reducer."""
    counters = [collections.Counter() for _ in range(REDUCERS)]
    for word, times in collections.Counter(WORD.findall(bytes(text).lower())).items():
        counters[reducer_of(word)][word] = times
    return counters


def add(*counters):
    return sum(counters, collections.Counter())


def check(text, found):
    """That it is what one process finds by itself; what is said of it is the same for every system."""
    assert found == collections.Counter(WORD.findall(text.lower()))
    return f"{len(found)} words, {found.total()} in all"


class WordCount:
    """The program on a system whose module is `ray`, or one like it."""

    def __init__(self, ray, folder=FOLDER):
        self.ray = ray
        self.text = text_of(folder)
        self.count = ray.remote(num_returns=REDUCERS)(count)
        self.add = ray.remote(add)

    def run(self):
        """Every word, and how often it is there."""
        counted = [self.count.remote(self.ray.put(part)) for part in parts(self.text, MAPPERS)]
        added = [self.add.remote(*(counters[n] for counters in counted)) for n in range(REDUCERS)]
        return sum(self.ray.get(added), collections.Counter())

    def check(self, found):
        """What it is, if it is right."""
        return check(self.text, found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--api", default="pydmrpc", choices=["pydmrpc", "ray"])
    parser.add_argument("folder", nargs="?", type=pathlib.Path, default=FOLDER)
    arguments = parser.parse_args()
    ray = importlib.import_module(arguments.api)
    ray.init()
    program = WordCount(ray, arguments.folder)
    begun = time.perf_counter()
    found = program.run()
    took = time.perf_counter() - begun
    print(f"{program.check(found)}, in {took:.3f} s; most often: {found.most_common(5)}")
    ray.shutdown()


if __name__ == "__main__":
    main()
