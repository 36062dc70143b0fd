"""What Spark has for the same: a broadcast variable and a function over one element; broadcasts made and dropped. One warm context in
local mode with all processors. (The paper ran `foreach` over an empty list, so that its function never ran.) And those of the everyday
programs of examples/ that are natural on Spark, made of the same functions."""

import argparse
import collections
import concurrent.futures
import operator
import os
import pathlib
import sys

import payload
import touch
import turns
from pyspark.sql import SparkSession

arguments = argparse.ArgumentParser()
arguments.add_argument("--part", choices=["cow", "create_ref", "everyday"], required=True)
arguments = arguments.parse_args()
folder = pathlib.Path(__file__).resolve().parent
examples = [str(folder.parents[1] / "examples" / name) for name in ("word_count", "sort", "inference")]
sys.path[:0] = examples
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), *examples, os.environ.get("PYTHONPATH")]))
os.environ["PYSPARK_PYTHON"] = sys.executable
session = (
    SparkSession.builder.master("local[*]")
    .appName("compare")
    .config("spark.ui.enabled", "false")
    .config("spark.ui.showConsoleProgress", "false")
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

    def look(variable):
        answer = context.parallelize([0], 1).map(lambda _: payload.sum64(variable.value)).collect()[0]
        variable.destroy()
        return f"{answer:016x}"

    if case.get("first"):
        return turns.once(lambda: context.broadcast(data), look)
    answer = look(context.broadcast(data))
    return turns.timed(seconds, batch, 1, answer)


def word_count():
    import word_count as example

    text = example.text_of(example.FOLDER)

    def run():
        parts = context.parallelize(list(example.parts(text, example.MAPPERS)), example.MAPPERS)
        counts = parts.flatMap(lambda part: collections.Counter(example.WORD.findall(part.lower())).items())
        return collections.Counter(dict(counts.reduceByKey(operator.add, example.REDUCERS).collect()))

    return run, lambda found: example.check(text, found)


def sort():
    import sort as example

    parts = example.all_parts(example.RECORDS)

    def run():
        ranges = context.parallelize(parts, example.MAPPERS).flatMap(lambda part: enumerate(example.split(part)))
        together = ranges.partitionBy(example.REDUCERS, lambda number: number)
        return together.mapPartitions(lambda found: [example.merge(*(part for _, part in found))]).collect()

    return run, lambda found: example.check(example.RECORDS, found)


def inference():
    import inference as example

    task = example.Task(example.PIECES)
    # Once, for all batches and all runs.
    model, labels = context.broadcast(task.model), context.broadcast(task.labels)

    def run():
        batches = context.parallelize(task.batches, len(task.batches))
        return example.np.concatenate(batches.map(lambda batch: example.infer(model.value, labels.value, batch)).collect())

    return run, task.check


made = {}


def everyday(way, case, seconds):
    name = case["program"]
    if name not in made:
        made.clear()
        made[name] = {"word_count": word_count, "sort": sort, "inference": inference}[name]()
    run, check = made[name]
    return turns.timed(seconds, run, 1, check(run()))


turns.take({"cow": cow, "create_ref": create_ref, "everyday": everyday}[arguments.part])
