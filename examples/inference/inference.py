"""Batch inference with one large model that is only read: it is put once, and every task sees the same pages.

The model: pieces of photographs and where they are from. What is inferred: from which photograph a piece is that was brightened and has noise.

    python inference.py [--api ray] [--pieces 4096]
"""

import argparse
import importlib
import pathlib
import time

import numpy as np
from PIL import Image

PHOTOGRAPHS = pathlib.Path(__file__).resolve().parents[1] / "img_transcode" / "photos"
SIDE = 16
BATCH = 64
PIECES = 512


def build(paths):
    """The model: pieces of unit length, a row each, and which photograph each is from."""
    pieces, labels = [], []
    for label, path in enumerate(paths):
        with Image.open(path) as picture:
            grey = np.asarray(picture.convert("L").resize((512, 512)), np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(grey, (SIDE, SIDE))[::4, ::4].reshape(-1, SIDE * SIDE)
        pieces.append(windows[windows.std(axis=1) > 20])
        labels.append(np.full(len(pieces[-1]), label, np.int32))
    return normal(np.concatenate(pieces)), np.concatenate(labels)


def normal(pieces):
    pieces = pieces - pieces.mean(axis=1, keepdims=True)
    return np.ascontiguousarray(pieces / np.linalg.norm(pieces, axis=1, keepdims=True), np.float32)


def infer(model, labels, batch):
    """From which photographs the pieces are: that of the likeliest piece."""
    return labels[np.argmax(model @ normal(batch).T, axis=0)]


class Task:
    """What is to be inferred, and what is right."""

    def __init__(self, count):
        self.model, self.labels = build(sorted(PHOTOGRAPHS.glob("*.[jp][pn]g")))
        chance = np.random.default_rng(7)
        chosen = chance.integers(len(self.model), size=count)
        self.truth = self.labels[chosen]
        pieces = 1.3 * self.model[chosen] + chance.normal(0, 0.02, (count, SIDE * SIDE)).astype(np.float32) + 0.1
        self.batches = [pieces[at : at + BATCH] for at in range(0, count, BATCH)]

    def check(self, found):
        """That nearly all are right; what is said of them is the same for every system."""
        right = float(np.mean(found == self.truth))
        assert right > 0.95, f"only {right:.1%} are right"
        return f"{right:.1%} of {len(found)} are right"


class Inference:
    """The program on a system whose module is `ray`, or one like it."""

    def __init__(self, ray, count=PIECES):
        self.ray, self.task = ray, Task(count)
        # Once, for all batches and all runs.
        self.model, self.labels = ray.put(self.task.model), ray.put(self.task.labels)
        self.infer = ray.remote(infer)

    def run(self):
        """From which photograph each piece is."""
        return np.concatenate(self.ray.get([self.infer.remote(self.model, self.labels, batch) for batch in self.task.batches]))

    def check(self, found):
        """How many are right, if nearly all are."""
        return self.task.check(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--api", default="pydmrpc", choices=["pydmrpc", "ray"])
    parser.add_argument("--pieces", type=int, default=4096)
    arguments = parser.parse_args()
    ray = importlib.import_module(arguments.api)
    ray.init()
    program = Inference(ray, arguments.pieces)
    begun = time.perf_counter()
    found = program.run()
    took = time.perf_counter() - begun
    print(f"{program.check(found)}; model of {program.task.model.nbytes >> 20} MiB; {len(found) / took:.0f} pieces/s")
    ray.shutdown()


if __name__ == "__main__":
    main()
