"""The tiers of the seven-tier image service on Ray's API: client (this program), firewall, three balancers, dispatcher, two workers,
an actor each. By reference the image's reference travels inside a list, so that only the worker fetches it; by value the image
itself is an argument, which is faster for small ones.

The tiers decide by the header alone, as those of examples/img_transcode do.
"""

import itertools
import threading
import zlib

import numpy as np
import payload
import programs
import turns

WORKERS = 2
MAX_BYTES = 128 << 20
AT_A_TIME = 64

ray = programs.start(2 << 30)


@ray.remote
class Worker:
    def serve(self, header, image):
        if isinstance(image, list):
            image = ray.get(image[0])
        return zlib.crc32(np.ascontiguousarray(image))


@ray.remote(max_concurrency=AT_A_TIME)
class Dispatcher:
    def __init__(self, workers):
        self.workers = workers
        self.places = threading.Semaphore(2 * len(workers))
        self.turn = itertools.cycle(range(len(workers)))

    def serve(self, header, image):
        with self.places:
            return ray.get(self.workers[next(self.turn)].serve.remote(header, image))


@ray.remote(max_concurrency=AT_A_TIME)
class Balancer:
    def __init__(self, following):
        self.following = following

    def serve(self, header, image):
        chosen = self.following[hash(header["client"]) % len(self.following)]
        return ray.get(chosen.serve.remote(header, image))


@ray.remote(max_concurrency=AT_A_TIME)
class Firewall:
    def __init__(self, following):
        self.following = following

    def serve(self, header, image):
        if not header["client"].startswith("10.") or header["bytes"] > MAX_BYTES:
            raise PermissionError(header["client"])
        return ray.get(self.following.serve.remote(header, image))


dispatcher = Dispatcher.remote([Worker.remote() for _ in range(WORKERS)])
third = Balancer.remote([dispatcher])
second = Balancer.remote([third])
firewall = Firewall.remote(Balancer.remote([second]))


def turn(way, case, seconds):
    data = payload.array(case["size"])
    expected = zlib.crc32(data)
    numbers = itertools.count()

    def begin():
        header = {"client": f"10.0.0.{next(numbers) % 256}", "bytes": len(data)}
        return firewall.serve.remote(header, data if way == "value" else [ray.put(data)])

    def check(found):
        if found != expected:
            raise SystemExit("the worker saw other bytes")

    check(ray.get(begin()))
    return turns.under_load(ray, case["load"], seconds, begin, check, f"{expected:08x}")


turns.take(turn)
