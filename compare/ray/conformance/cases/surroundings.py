"""What a user sees around a program: what workers print, Ctrl-C, the command line."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap

from conformance.case import case, gate, until

#: In front of what a worker prints: who it is.
_PREFIX = re.compile(r"^\((?P<who>[^)]*?) ?pid=\d+(?:, ip=[^)]*)?\) ?")
_COLOR = re.compile(r"\x1b\[[0-9;]*m")


def _script(ray, text):
    """A program that is run by an interpreter of its own."""
    head = f"import {ray.__name__} as ray\n"
    return [sys.executable, "-c", head + textwrap.dedent(text)]


def _output(ray, text):
    """Lines that a program's workers printed and that speak of ``say``, as (who, what) in order."""
    done = subprocess.run(_script(ray, text), capture_output=True, text=True, timeout=50, check=False)
    lines = []
    for line in _COLOR.sub("", done.stdout + done.stderr).splitlines():
        if "say" in line:
            match = _PREFIX.match(line)
            lines.append(
                [
                    match["who"] if match else None,
                    line[match.end() :] if match else line,
                ]
            )
    return sorted(lines, key=repr)


@case("logging", alone=True)
def prints_of_a_task(ray):
    return _output(
        ray,
        """
        import time
        ray.init(num_cpus=1)
        @ray.remote
        def f():
            print("say hello")
        ray.get(f.remote())
        time.sleep(1.5)
        """,
    )


@case("logging", alone=True)
def prints_of_an_actor(ray):
    return _output(
        ray,
        """
        import sys, time
        ray.init(num_cpus=1)
        @ray.remote
        class Talker:
            def f(self):
                print("say out")
                print("say err", file=sys.stderr)
        a = Talker.remote()
        ray.get(a.f.remote())
        time.sleep(1.5)
        """,
    )


@case("logging", alone=True)
def the_representation_of_an_actor_is_its_prefix(ray):
    return _output(
        ray,
        """
        import time
        ray.init(num_cpus=1)
        @ray.remote
        class Talker:
            def __repr__(self):
                return "Talker of its own"
            def f(self):
                print("say something")
        a = Talker.remote()
        ray.get(a.f.remote())
        time.sleep(1.5)
        """,
    )


@case("logging", alone=True)
def prints_that_are_not_wanted(ray):
    return _output(
        ray,
        """
        import time
        ray.init(num_cpus=1, log_to_driver=False)
        @ray.remote
        def f():
            print("say nothing")
        ray.get(f.remote())
        time.sleep(1)
        """,
    )


@case("logging", alone=True, deadline=90)
def prints_that_repeat(ray):
    lines = _output(
        ray,
        """
        import os, time
        ray.init(num_cpus=3)
        @ray.remote
        class A:
            def f(self):
                print("say the same")
        actors = [A.remote() for _ in range(3)]
        ray.get([a.f.remote() for a in actors])
        time.sleep(7)
        """,
    )
    whole = [what for _, what in lines]
    return sum("say the same" in what for what in whole) < 3, any("repeated" in what for what in whole)


@case("logging", alone=True)
def logging_of_a_task(ray):
    return _output(
        ray,
        """
        import time
        ray.init(num_cpus=1)
        @ray.remote
        def f():
            import logging
            logging.basicConfig(format="%(levelname)s %(message)s")
            logging.warning("say careful")
        ray.get(f.remote())
        time.sleep(1.5)
        """,
    )


@case("logging", alone=True)
def prints_without_an_end(ray):
    return _output(
        ray,
        """
        import sys, time
        ray.init(num_cpus=1)
        @ray.remote
        def f():
            sys.stdout.write("say one\\nsay two\\n")
            sys.stdout.flush()
        ray.get(f.remote())
        time.sleep(1.5)
        """,
    )


@case("logging", alone=True)
def ctrl_c_ends_a_get(ray):
    with gate() as ready:
        program = _script(
            ray,
            f"""
            import pathlib, signal, time
            signal.signal(signal.SIGINT, signal.default_int_handler)
            ray.init(num_cpus=1)
            @ray.remote
            def f():
                pathlib.Path({str(ready.path)!r}).touch()
                time.sleep(1000)
            try:
                ray.get(f.remote())
            except KeyboardInterrupt:
                print("interrupted")
            ray.shutdown()
            """,
        )
        process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        ready.wait(50)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=50)
        return "interrupted" in output, process.returncode


@case("logging", alone=True)
def workers_go_when_their_driver_is_killed(ray):
    with gate() as ready:
        program = _script(
            ray,
            f"""
            import os, pathlib, time
            ray.init(num_cpus=1)
            @ray.remote
            def f():
                path = pathlib.Path({str(ready.path)!r})
                path.with_name("pid").write_text(str(os.getpid()))
                path.touch()
                time.sleep(1000)
            ray.get(f.remote())
            """,
        )
        process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ready.wait(50)
        pid = int(ready.path.with_name("pid").read_text())
        process.kill()
        process.wait()
        return until(lambda: not os.path.exists(f"/proc/{pid}") or _is_zombie(pid), 40)


@case("logging", alone=True)
def the_exit_code_of_a_program_that_fails(ray):
    program = _script(
        ray,
        """
        ray.init(num_cpus=1)
        @ray.remote
        def f():
            raise ValueError("told to the user")
        ray.get(f.remote())
        """,
    )
    done = subprocess.run(program, capture_output=True, text=True, timeout=50, check=False)
    return (
        done.returncode,
        "told to the user" in done.stderr,
        "ValueError" in done.stderr,
    )


# --- Command line ---------------------------------------------------------------------------------------------------------


def _tool(ray, *arguments):
    name = {"ray": "ray"}.get(ray.__name__, "dmrpc")
    path = shutil.which(name, path=os.path.dirname(sys.executable))
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    return subprocess.run(
        [path, *arguments],
        capture_output=True,
        text=True,
        timeout=80,
        check=False,
        env=environment,
    )


@case("command line", alone=True)
def status_of_nothing(ray):
    _tool(ray, "stop", "--force")
    return _tool(ray, "status").returncode != 0


@case("command line", alone=True)
def stop_of_nothing(ray):
    return _tool(ray, "stop").returncode


@case("command line", alone=True)
def help_of_the_tool(ray):
    done = _tool(ray, "--help")
    return done.returncode, [word in done.stdout for word in ("start", "stop", "status", "memory", "list")]


@case("command line", alone=True)
def a_command_that_is_none(ray):
    return _tool(ray, "no-such-command").returncode


@case("command line", alone=True, deadline=240)
def start_and_stop(ray):
    started = _tool(ray, "start", "--head", "--num-cpus", "3")
    try:
        ray.init(address="auto", log_to_driver=False)
        cpus = ray.cluster_resources()["CPU"]

        @ray.remote
        def f():
            return "ran there"

        result = ray.get(f.remote())
        ray.shutdown()
    finally:
        stopped = _tool(ray, "stop", "--force")
    return started.returncode, cpus, result, stopped.returncode


@case("command line", alone=True, deadline=150)
def a_detached_actor_outlives_its_driver(ray):
    started = _tool(ray, "start", "--head", "--num-cpus", "2")
    try:
        ray.init(address="auto", namespace="outlives", log_to_driver=False)

        @ray.remote
        class A:
            def f(self):
                return "alive"

        ray.get(A.options(name="outlives", lifetime="detached").remote().f.remote())
        ray.shutdown()
        ray.init(address="auto", namespace="outlives", log_to_driver=False)
        result = ray.get(ray.get_actor("outlives").f.remote())
        ray.shutdown()
    finally:
        _tool(ray, "stop", "--force")
    return started.returncode, result


def _is_zombie(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(") ")[2][0] == "Z"
    except OSError:
        return True
