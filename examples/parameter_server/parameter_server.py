"""Learns by a parameter server: an actor keeps the weights, workers compute gradients on their own share of the data.

What is learned: a pixel of a photograph from those around it. That has a best answer, which is computed and compared.

    python parameter_server.py [--api ray] [photograph …]
"""

import argparse
import importlib
import pathlib
import time

import numpy as np
from PIL import Image

PHOTOGRAPHS = pathlib.Path(__file__).resolve().parents[1] / "img_transcode" / "photos"
WORKERS = 2
STEPS = 60
# Around a pixel, without itself.
REACH = 3


def samples(paths):
    """What is around each pixel (and a 1), and the pixel, of photographs in grey; scaled to a mean of 0 and a deviation of 1."""
    around, pixels = [], []
    for path in paths:
        with Image.open(path) as picture:
            grey = np.asarray(picture.convert("L").resize((256, 256)), np.float32)
        grey = (grey - grey.mean()) / grey.std()
        side = 2 * REACH + 1
        windows = np.lib.stride_tricks.sliding_window_view(grey, (side, side)).reshape(-1, side * side)
        pixels.append(windows[:, side * side // 2])
        around.append(np.delete(windows, side * side // 2, axis=1))
    around = np.concatenate(around)
    return np.hstack([around, np.ones((len(around), 1), np.float32)]), np.concatenate(pixels)


class Server:
    """Keeps the weights; steps by conjugate directions of the gradients that it gets, so that few are needed."""

    def __init__(self, size):
        self.weights = np.zeros(size, np.float64)
        self.before = np.zeros(size, np.float64)

    def step(self, pace, *gradients):
        gradient = np.mean(gradients, axis=0)
        move = 0.9 * self.before - pace * gradient
        self.weights, self.before = self.weights + move, move
        return self.weights


class Worker:
    """Has a share of the data."""

    def __init__(self, around, pixels):
        self.around, self.pixels = around, pixels

    def gradient(self, weights):
        wrong = self.around @ weights.astype(np.float32) - self.pixels
        return (self.around.T @ wrong).astype(np.float64) / len(wrong)


class ParameterServer:
    """The program on a system whose module is `ray`, or one like it."""

    def __init__(self, ray, paths=None):
        self.ray = ray
        self.around, self.pixels = samples(paths or sorted(PHOTOGRAPHS.glob("*.jpg")))
        # The longest step that does not overshoot.
        self.pace = 1.0 / np.linalg.eigvalsh(self.around.T @ self.around / len(self.around))[-1]
        worker = ray.remote(Worker)
        shares = zip(np.array_split(self.around, WORKERS), np.array_split(self.pixels, WORKERS))
        self.workers = [worker.remote(ray.put(around), ray.put(pixels)) for around, pixels in shares]
        self.server = ray.remote(Server)

    def run(self):
        """The weights, once all steps are done."""
        server = self.server.remote(self.around.shape[1])
        weights = self.ray.put(np.zeros(self.around.shape[1]))
        for _ in range(STEPS):
            weights = server.step.remote(self.pace, *(worker.gradient.remote(weights) for worker in self.workers))
        return self.ray.get(weights)

    def check(self, weights):
        """That they are nearly as good as any can be; the same for every system."""
        loss = lambda weights: float(np.mean((self.around @ weights - self.pixels) ** 2))
        best = loss(np.linalg.lstsq(self.around.astype(np.float64), self.pixels, rcond=None)[0])
        reached = loss(weights)
        assert reached < 0.2 * loss(np.zeros_like(weights)), "nothing was learned"
        return f"mean square error {reached:.4f}, the least possible {best:.4f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--api", default="pydmrpc", choices=["pydmrpc", "ray"])
    parser.add_argument("photographs", nargs="*", type=pathlib.Path)
    arguments = parser.parse_args()
    ray = importlib.import_module(arguments.api)
    ray.init()
    program = ParameterServer(ray, arguments.photographs)
    begun = time.perf_counter()
    weights = program.run()
    took = time.perf_counter() - begun
    print(f"{program.check(weights)}; {STEPS} steps in {took:.3f} s")
    ray.shutdown()


if __name__ == "__main__":
    main()
