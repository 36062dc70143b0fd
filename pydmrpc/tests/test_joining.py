"""Several programs with one hub."""

import subprocess
import sys
import textwrap

import pydmrpc
import pytest
from conftest import PATIENCE, until


@pydmrpc.remote
class Board:
    def __init__(self):
        self.notes = []

    def note(self, what):
        self.notes.append(what)
        return len(self.notes)

    def all(self):
        return pydmrpc.get([note for note in self.notes if isinstance(note, pydmrpc.ObjectRef)])


def program(text, *arguments):
    command = [sys.executable, "-c", textwrap.dedent(text), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)


def test_two_programs_share_actors_and_results(runtime):
    board = Board.options(name="board").remote()
    assert pydmrpc.get(board.note.remote("first"), timeout=PATIENCE) == 1
    done = program(
        """
        import sys
        import numpy as np
        import pydmrpc

        context = pydmrpc.init(sys.argv[1])

        @pydmrpc.remote
        def double(x):
            return 2 * x

        board = pydmrpc.get_actor("board")
        assert pydmrpc.get(board.note.remote("second")) == 2
        assert pydmrpc.get(double.remote(4)) == 8
        assert pydmrpc.get(double.remote(np.ones(1 << 18))).sum() == 1 << 19
        kept = double.remote(21)
        assert pydmrpc.get(board.note.remote([kept][0])) == 3
        pydmrpc.get(board.note.remote([double.remote(1)]))
        assert pydmrpc.wait([double.remote(1)], timeout=60)[1] == []
        pydmrpc.shutdown()
        pydmrpc.init(sys.argv[1])
        assert pydmrpc.get(double.remote(4)) == 8
        print("fine")
        """,
        pydmrpc.hub_address(),
    )
    assert done.stdout == "fine\n", done.stderr
    assert pydmrpc.get(board.note.remote("last"), timeout=PATIENCE) == 5


def test_the_hub_goes():
    """Whoever joined hears of it: what waits ends, and what is begun later does not hang."""
    hub = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, pydmrpc; pydmrpc.init(num_cpus=1, pool='64MiB'); print(pydmrpc.hub_address(), flush=True); sys.stdin.read()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    pydmrpc.shutdown()
    try:
        pydmrpc.init(hub.stdout.readline().strip())

        @pydmrpc.remote
        def forever():
            while True:
                pass

        ref = forever.remote()
        hub.kill()
        hub.wait()
        with pytest.raises(pydmrpc.exceptions.RayError):
            pydmrpc.get(ref, timeout=PATIENCE)

        def is_known():
            try:
                forever.remote()
            except pydmrpc.exceptions.LocalRayletDiedError:
                return True
            return False

        until(is_known, "calls raise")
    finally:
        pydmrpc.shutdown()
        hub.kill()
        hub.wait()
        hub.stdin.close()
        hub.stdout.close()
