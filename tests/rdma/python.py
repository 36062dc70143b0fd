#!/usr/bin/env python3
"""Puts the interpreter that runs this into a folder, with its standard library and the package: python.py FOLDER

What comes of it is started as FOLDER/bin/python3, with PYTHONHOME=FOLDER wherever that lies by then. Modules are compiled
here: an emulated machine takes long for it.
"""

import compileall
import importlib.util
import py_compile
import shutil
import sys
import sysconfig
from pathlib import Path

# What no program needs that is tested in the guest.
LEFT_OUT = shutil.ignore_patterns(
    "__pycache__", "site-packages", "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "config-*",
    "_tkinter*", "_test*"
)
PACKAGES = ("cloudpickle", "pydmrpc")


def main() -> None:
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "bin").mkdir(parents=True)
    shutil.copy(Path(sys.executable).resolve(), folder / "bin" / "python3")
    library = Path(sysconfig.get_path("stdlib"))
    copied = folder / "lib" / library.name
    shutil.copytree(library, copied, ignore=LEFT_OUT)
    if (extensions := Path(sysconfig.get_config_var("DESTSHARED"))).parent != library:
        shutil.copytree(extensions, copied / "lib-dynload", dirs_exist_ok=True)
    for name in PACKAGES:
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:
            sys.exit(f"{sys.executable} has no {name}: make python")
        shutil.copytree(Path(found.origin).parent, copied / "site-packages" / name, ignore=LEFT_OUT)
    compileall.compile_dir(
        copied, quiet=1, workers=0, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
    )


if __name__ == "__main__":
    main()
