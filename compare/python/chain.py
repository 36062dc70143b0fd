"""An object through a chain of actors on Ray's API; the last one reads all of it. Between the first and the last the reference
travels inside a list, so that nobody fetches what it does not look at."""

import payload
import programs
import turns

LONGEST = 7

ray = programs.start(2 << 30)


@ray.remote(max_concurrency=16)
class Link:
    def __init__(self, following):
        self.following = following

    def forward(self, references, more):
        if more:
            return ray.get(self.following.forward.remote(references, more - 1))
        return payload.sum64(ray.get(references[0]))


links = [None]
for _ in range(LONGEST):
    links.append(Link.remote(links[-1]))


def turn(way, case, seconds):
    data = payload.array(case["size"])
    actors, in_flight = case["actors"], case["load"]["in_flight"]
    expected = payload.sum64(data)

    def batch():
        calls = [links[-1].forward.remote([ray.put(data)], actors - 1) for _ in range(in_flight)]
        if ray.get(calls) != [expected] * in_flight:
            raise SystemExit("the last one saw other bytes")

    batch()
    return turns.timed(seconds, batch, in_flight, f"{expected:016x}")


turns.take(turn)
