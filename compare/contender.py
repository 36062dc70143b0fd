"""A program that is given turns: orders on its standard input, answers on its standard output, one line of JSON each."""

import json
import os
import selectors
import signal
import subprocess
import tempfile
import time


class Failed(Exception):
    """It can't be started, ended, or does not answer."""


class Contender:
    # The first answer of a program that has to start a cluster, and any other one beyond the time of its turn.
    START_SECONDS = 120
    ANSWER_SECONDS = 120
    STOP_SECONDS = 30

    def __init__(self, command, folder):
        self.log = tempfile.TemporaryFile("w+", dir=folder)
        environment = os.environ | {"TMPDIR": folder, "RAY_TMPDIR": folder, "PYTHONUNBUFFERED": "1"}
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.log,
                env=environment,
                # What it starts in turn is ended with it.
                start_new_session=True,
            )
        except OSError as error:
            raise Failed(str(error)) from error
        self.waits = self.START_SECONDS

    def turn(self, way, case, seconds):
        order = json.dumps({"way": way, "case": case, "seconds": seconds}) + "\n"
        try:
            self.process.stdin.write(order.encode())
            self.process.stdin.flush()
        except OSError as error:
            raise Failed(self._last_words()) from error
        line = self._line(time.monotonic() + self.waits + seconds)
        self.waits = self.ANSWER_SECONDS
        return json.loads(line)

    def _line(self, deadline):
        line = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0, deadline - time.monotonic())):
                    raise Failed("it does not answer in time")
                part = os.read(self.process.stdout.fileno(), 1 << 16)
                if not part:
                    raise Failed(self._last_words())
                line += part
        return line

    def _last_words(self):
        try:
            status = self.process.wait(self.STOP_SECONDS)
        except subprocess.TimeoutExpired:
            status = "still running"
        self.log.seek(0)
        lines = [line for line in self.log.read().strip().split("\n") if line.strip()]
        return f"{lines[-1] if lines else 'it ended without a word'} ({status})"

    def close(self):
        """Its input ends, and so does it, and whatever it has started."""
        try:
            self.process.stdin.close()
        except OSError:
            pass
        try:
            self.process.wait(self.STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.process.stdout.close()
        self.log.close()
