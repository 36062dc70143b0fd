"""What people run every day: a program of examples/, on Ray's API. An operation is a whole run of it."""

import importlib
import pathlib

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

ray = programs.start(2 << 30, [EXAMPLES / name for name in PROGRAMS])
made = {}


def turn(way, case, seconds):
    name = case["program"]
    if name not in made:
        made.clear()
        made[name] = getattr(importlib.import_module(name), PROGRAMS[name])(ray)
    program = made[name]
    answer = program.check(program.run())
    return turns.timed(seconds, program.run, 1, answer)


turns.take(turn)
