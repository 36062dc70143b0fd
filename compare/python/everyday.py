"""What people run every day: a program of examples/, on Ray's API. An operation is a whole run of it."""

import importlib
import pathlib
import sys

import programs
import turns

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"
PROGRAMS = {
    "word_count": "WordCount",
    "sort": "Sort",
    "parameter_server": "ParameterServer",
    "inference": "Inference",
    "augmentation": "Augmentation",
}


def load(name):
    """The example's module, under a name by which workers can import it too."""
    folder = str(EXAMPLES / name)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return getattr(importlib.import_module(name), PROGRAMS[name])


ray = programs.start(2 << 30, [EXAMPLES / name for name in PROGRAMS])
made = {}


def turn(way, case, seconds):
    name = case["program"]
    if name not in made:
        made.clear()
        made[name] = load(name)(ray)
    program = made[name]
    answer = program.check(program.run())
    return turns.timed(seconds, program.run, 1, answer)


turns.take(turn)
