"""Small Ray programs end as they end on Ray: compare/ray/conformance has them, and what Ray ended in."""

import pathlib
import re
import subprocess
import sys

from conftest import ROOT

#: Seconds for all programs together; they are expected to take a quarter.
PATIENCE = 900


def test_ray_programs_end_as_on_ray():
    done = subprocess.run(
        [sys.executable, "-m", "conformance", "check"],
        cwd=ROOT / "compare" / "ray",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-2000:]}"
    passed = int(re.search(r"(\d+) passed", done.stdout)[1])
    assert passed >= 200


def test_differences_are_few_and_have_cases():
    sys.path.insert(0, str(ROOT / "compare" / "ray"))
    try:
        from conformance.case import load
        from conformance.differences import DIFFERENCES
    finally:
        sys.path.pop(0)
    cases = load()
    assert DIFFERENCES.keys() <= cases.keys()
    assert len(DIFFERENCES) <= len(cases) / 20


def test_everything_of_util_is_documented():
    import inspect

    import pydmrpc.util

    folder = pathlib.Path(pydmrpc.util.__file__).parent
    for path in folder.rglob("*.py"):
        name = ".".join(path.relative_to(folder.parent.parent).with_suffix("").parts).removesuffix(".__init__")
        module = sys.modules.get(name) or __import__(name, fromlist=["_"])
        assert inspect.getdoc(module), name
        for member, value in vars(module).items():
            if not member.startswith("_") and getattr(value, "__module__", None) == name and callable(value):
                assert inspect.getdoc(value), f"{name}.{member}"
