"""A Python program whose objects are in a memory node over RDMA: smoke.py URL"""

import sys

import pydmrpc


@pydmrpc.remote
def count(data: bytes, byte: int) -> int:
    return data.count(byte)


@pydmrpc.remote
def doubled(data: bytes) -> bytes:
    return data * 2


@pydmrpc.remote
class Total:
    def __init__(self) -> None:
        self.bytes = 0

    def add(self, data: bytes) -> int:
        self.bytes += len(data)
        return self.bytes


def main() -> None:
    pydmrpc.init(sys.argv[1], num_cpus=2, deadline=60)
    data = bytes(range(256)) * 4096
    ref = pydmrpc.put(data)
    assert pydmrpc.get(ref) == data
    print("put and get: 1 MiB")
    # Workers are processes with links of their own: what they are given, and what they give back, goes through the node.
    assert pydmrpc.get(count.remote(ref, 7), timeout=120) == 4096
    assert pydmrpc.get(doubled.remote(ref), timeout=120) == data * 2
    print("tasks: 1 MiB there, 2 MiB back")
    total = Total.remote()
    assert [pydmrpc.get(total.add.remote(ref), timeout=120) for _ in range(3)] == [len(data) * n for n in (1, 2, 3)]
    print("actor: 1 MiB three times")
    pydmrpc.shutdown()


if __name__ == "__main__":
    main()
