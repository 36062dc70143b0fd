"""The process that workers are forked from: it has imported what they need, and has one thread.

Started by the hub with a socket as standard input; ``pydmrpc/src/runtime/zygote.rs`` draws the messages. It ends when the hub does.
"""

from __future__ import annotations

import array
import contextlib
import os
import pickle
import select
import signal
import socket
import struct
import sys
from typing import Any

_MAX_BYTES = 1 << 20


def main() -> None:
    link = socket.socket(fileno=os.dup(0))
    os.set_inheritable(link.fileno(), False)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    # An interrupt at the terminal is the driver's affair.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    first = link.recv(_MAX_BYTES)
    if not first:
        return
    settings: dict[str, Any] = pickle.loads(first[1:])
    sys.path[:] = settings["path"]
    # As Ray has it: there are as many workers as processors, and none is to compute with the threads of all of them.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # What every worker needs is loaded once, here.
    import cloudpickle  # noqa: F401

    import pydmrpc._worker

    poll = select.poll()
    poll.register(link, select.POLLIN)
    workers: dict[int, tuple[int, int]] = {}
    while True:
        for descriptor, _ in poll.poll():
            if descriptor != link.fileno():
                worker, pid = workers.pop(descriptor)
                poll.unregister(descriptor)
                os.close(descriptor)
                _, status = os.waitpid(pid, 0)
                _tell(link, struct.pack("<cIi", b"E", worker, os.waitstatus_to_exitcode(status)))
                continue
            message, descriptors = _receive(link)
            if not message:
                return
            worker, secret, environment = struct.unpack_from("<IQQ", message, 1)
            pid = os.fork()
            if pid == 0:
                poll.unregister(link)
                link.close()
                for other in workers:
                    os.close(other)
                os.dup2(descriptors[0], 1)
                os.dup2(descriptors[1], 2)
                for other in descriptors:
                    os.close(other)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                pydmrpc._worker.main(settings, worker, secret, environment, message[21:])
                os._exit(0)
            for other in descriptors:
                os.close(other)
            process = os.pidfd_open(pid)
            workers[process] = (worker, pid)
            poll.register(process, select.POLLIN)
            _tell(link, struct.pack("<cII", b"S", worker, pid), process)


def _tell(link: socket.socket, news: bytes, *descriptors: int) -> None:
    passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    # If the hub is gone, the next look at the link finds that.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        link.sendmsg([news], passed)


def _receive(link: socket.socket) -> tuple[bytes, list[int]]:
    descriptors = array.array("i")
    space = socket.CMSG_LEN(2 * descriptors.itemsize)
    try:
        message, ancillary, _, _ = link.recvmsg(_MAX_BYTES, space, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        # The hub was killed with news of ours unread: its end all the same.
        return b"", []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    return message, list(descriptors)


if __name__ == "__main__":
    main()
