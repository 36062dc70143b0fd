"""Copy on write on Ray's API: an object is put, passed to a worker in another process, which writes into some of its pages.

Ray's arrays are read-only, so its worker copies the array first, as its documentation says. pydmrpc's can be written: only the pages
that are written are copied.
"""

import numpy as np
import payload
import programs
import touch
import turns

ray = programs.start(2 << 30)


def written(array, pages, size, check):
    own = array if array.flags.writeable else array.copy()
    return touch.touch(own, pages, size, check)


@ray.remote
def task(array, pages, size, check):
    return written(array, pages, size, check)


@ray.remote
class Worker:
    def touch(self, array, pages, size, check):
        return written(array, pages, size, check)


worker = Worker.remote()


def turn(way, case, seconds):
    ask = task.remote if way == "task" else worker.touch.remote
    by_value = way == "value"
    data = payload.array(case["size"])
    pages, size, in_flight = case["touch"]["pages"], case["touch"]["bytes"], case["load"]["in_flight"]

    def send(check=False):
        return ask(data if by_value else ray.put(data), pages, size, check)

    original = data if by_value else ray.put(data)
    _, checksum = ray.get(ask(original, pages, size, True))
    if not np.array_equal(data if by_value else ray.get(original), data):
        raise SystemExit("the worker changed the original")
    own = data.copy()
    touch.stamp(own, pages, size)
    expected = [(touch.answer(own, pages), None)] * in_flight

    def batch():
        if [tuple(answer) for answer in ray.get([send() for _ in range(in_flight)])] != expected:
            raise SystemExit("the worker did not write what it had to")

    return turns.timed(seconds, batch, in_flight, checksum)


turns.take(turn)
