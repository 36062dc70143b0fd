"""References made and dropped on Ray's API: of bytes that become an object; and where there are references to ranges, of those."""

import numpy as np
import payload
import programs
import turns

ray = programs.start(5 << 30)
made = {}


def turn(way, case, seconds):
    size = case["size"]
    if case.get("first"):
        data = payload.array(size)
        return turns.once(lambda: ray.put(data), lambda reference: f"{payload.sum64(ray.get(reference)):016x}")
    if size not in made:
        made.clear()
        data = payload.array(size)
        made[size] = data, None
    data, _ = made[size]
    if way == "bytes":
        answer = payload.sum64(ray.get(ray.put(data)))
        return turns.timed(seconds, lambda: ray.put(data), 1, f"{answer:016x}")
    words = data.view("<u8")
    if made[size][1] is None:
        # A page more than the range, so that this is no reference to the whole.
        made[size] = data, ray.put(np.concatenate([np.zeros(512, "<u8"), words]))
    whole = made[size][1]
    answer = payload.sum64(ray.get(whole[512:]))

    def batch():
        for _ in range(1000):
            whole[512:]

    result = turns.timed(seconds, batch, 1000, f"{answer:016x}")
    return result | {name: result[name] / 1000 for name in result if name.endswith("_us")}


turns.take(turn)
