"""Which system a program runs on: `import ray`, or `import pydmrpc as ray`. The programs are the same."""

import argparse
import importlib
import os
import sys


def start(store_bytes, folders=()):
    """The module that the command line names, initialised on this machine with all its processors and a store of that size; its workers
    import from `folders` too."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--api", choices=["ray", "pydmrpc"], required=True)
    name = arguments.parse_args().api
    folder = os.path.dirname(os.path.abspath(__file__))
    # Workers import what lies here: ours look where this process does, Ray's where the variable says.
    paths = [folder, *map(str, folders)]
    sys.path[:0] = paths[1:]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*paths, os.environ.get("PYTHONPATH")]))
    api = importlib.import_module(name)
    if name == "ray":
        api.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR", object_store_memory=store_bytes)
    else:
        api.init()
    print(f"{name} {getattr(api, '__version__', '')} is up", file=sys.stderr)
    return api
