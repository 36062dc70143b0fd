"""Turns: one line of JSON for each, asked on standard input and answered on standard output, until the input ends.

What else is printed (Ray's and Spark's logs) goes to standard error.
"""

import json
import os
import statistics
import sys
import time


# With so many calls under way at a rate, the system is behind for good.
MAX_UNDER_WAY = 2048


def take(turn):
    """Has `turn(way, case, seconds)` answer every order with a dict that `timed` made."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        order = json.loads(line)
        answers.write(json.dumps(turn(order["way"], order["case"], order["seconds"])) + "\n")
        answers.flush()


def timed(seconds, batch, operations, answer):
    """Repeats `batch`, which does so many operations, for a time. A latency is that of a batch."""
    latencies, begun = [], time.perf_counter()
    before = begun
    while before - begun < seconds:
        batch()
        now = time.perf_counter()
        latencies.append((now - before) * 1e6)
        before = now
    return result(latencies, before - begun, answer) | {"operations": len(latencies) * operations}


def once(operation, answer):
    """Times one operation; `answer` makes the answer of what it gives."""
    begun = time.perf_counter()
    given = operation()
    took = time.perf_counter() - begun
    return result([took * 1e6], took, answer(given))


def result(latencies, seconds, answer, given_up=0):
    """What a turn is answered: latencies in microseconds, in any order."""
    latencies.sort()
    at = lambda share: latencies[int(share * (len(latencies) - 1))] if latencies else 0.0
    return {
        "operations": len(latencies),
        "seconds": seconds,
        "mean_us": statistics.fmean(latencies) if latencies else 0.0,
        "p50_us": at(0.5),
        "p90_us": at(0.9),
        "p99_us": at(0.99),
        "p999_us": at(0.999),
        "given_up": given_up,
        "answer": answer,
    }


def under_load(api, load, seconds, begin, check, answer):
    """Keeps so many calls under way, or begins so many a second; `begin()` gives a reference, and `check` looks at its value. A latency
    at a rate counts from when the call was due."""
    rate = load.get("per_second")
    lanes = load.get("in_flight")
    due_of, latencies, given_up = {}, [], 0
    begun = time.perf_counter()
    n = 0
    total = max(1, round(seconds * rate)) if rate else None

    def take(timeout):
        done, _ = api.wait(list(due_of), num_returns=1, timeout=timeout)
        for reference in done:
            check(api.get(reference))
            latencies.append((time.perf_counter() - due_of.pop(reference)) * 1e6)

    while seconds > 0:
        now = time.perf_counter()
        if lanes:
            if now - begun >= seconds:
                break
            while len(due_of) < lanes:
                due_of[begin()] = time.perf_counter()
            take(None)
            continue
        if n == total:
            break
        due = begun + n / rate
        if now < due:
            if due_of:
                take(due - now)
            else:
                time.sleep(due - now)
            continue
        n += 1
        if len(due_of) >= MAX_UNDER_WAY:
            given_up += 1
        else:
            due_of[begin()] = due
    while due_of:
        take(None)
    return result(latencies, time.perf_counter() - begun, answer, given_up)
