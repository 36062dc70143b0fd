"""What Spark has for the same: a broadcast variable and a function over one element; broadcasts made and dropped. One warm context in
local mode with all processors. (The paper ran `foreach` over an empty list, so that its function never ran.)"""

import argparse
import os
import sys
import concurrent.futures

import payload
import touch
import turns
from pyspark.sql import SparkSession

arguments = argparse.ArgumentParser()
arguments.add_argument("--part", choices=["cow", "create_ref"], required=True)
arguments = arguments.parse_args()
folder = os.path.dirname(os.path.abspath(__file__))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
os.environ["PYSPARK_PYTHON"] = sys.executable
session = (
    SparkSession.builder.master("local[*]")
    .appName("compare")
    .config("spark.ui.enabled", "false")
    .config("spark.driver.memory", "4g")
    .config("spark.driver.host", "127.0.0.1")
    .config("spark.driver.bindAddress", "127.0.0.1")
    .config("spark.python.worker.reuse", "true")
    .getOrCreate()
)
session.sparkContext.setLogLevel("ERROR")
context = session.sparkContext
pool = concurrent.futures.ThreadPoolExecutor(8)


def written(variable, pages, size, check):
    return touch.touch(variable.value.copy(), pages, size, check)


def cow(way, case, seconds):
    data = payload.array(case["size"])
    pages, size, in_flight = case["touch"]["pages"], case["touch"]["bytes"], case["load"]["in_flight"]

    def ask(check=False):
        variable = context.broadcast(data)
        found = context.parallelize([0], 1).map(lambda _: written(variable, pages, size, check)).collect()[0]
        variable.destroy()
        return found

    checksum = ask(True)[1]
    own = data.copy()
    touch.stamp(own, pages, size)
    expected = touch.answer(own, pages), None

    def batch():
        # As many at a time as its documentation has: one thread for each job.
        answers = list(pool.map(lambda _: ask(), range(in_flight))) if in_flight > 1 else [ask()]
        if any(answer != expected for answer in answers):
            raise SystemExit("the worker did not write what it had to")

    return turns.timed(seconds, batch, in_flight, checksum)


def create_ref(way, case, seconds):
    data = payload.array(case["size"])

    def batch():
        context.broadcast(data).destroy()

    variable = context.broadcast(data)
    answer = context.parallelize([0], 1).map(lambda _: payload.sum64(variable.value)).collect()[0]
    variable.destroy()
    return turns.timed(seconds, batch, 1, f"{answer:016x}")


turns.take({"cow": cow, "create_ref": create_ref}[arguments.part])
