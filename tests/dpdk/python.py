"""The Python package over DPDK: a memory node on one host of a cable, this program, its workers and an actor on the other.

`tests/dpdk/run` starts it with the package built with the feature `dpdk`. The hosts are network namespaces; the processes of one share its
device by the kernel's packet sockets, each with an address of its own.
"""

import contextlib
import os
import subprocess
import sys

NODE = "dpdk://10.9.0.1:7373"
DEVICE = "wire0"
BYTES = 3_000_001
#: How long anything may take; nothing is expected to take as long.
PATIENCE = 60


def eal(prefix):
    return (
        f"-l 0 --no-pci --no-huge -m 128 --iova-mode=va --no-telemetry --log-level=3 --file-prefix={prefix} "
        f"--vdev=net_af_packet0,iface={DEVICE},framesz=2048,blocksz=65536,framecnt=1024,qdisc_bypass=1"
    )


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


@contextlib.contextmanager
def cable():
    """Two hosts on one cable, by their names."""
    names = [f"dmp{os.getpid()}-{end}" for end in range(2)]
    try:
        for name in names:
            ip("netns", "add", name)
        ends = [("link", "add", DEVICE, "netns", names[0]), ("type", "veth", "peer", "name", DEVICE, "netns", names[1])]
        ip(*ends[0], *ends[1])
        for name in names:
            # Neighbour discovery of IPv6 would come between.
            quiet = f"echo 1 > /proc/sys/net/ipv6/conf/{DEVICE}/disable_ipv6"
            subprocess.run(["ip", "netns", "exec", name, "sh", "-c", quiet], check=False, stderr=subprocess.DEVNULL)
            ip("-n", name, "link", "set", DEVICE, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def node(program, host):
    process = subprocess.Popen(
        ["ip", "netns", "exec", host, program, "--pool", "64MiB", "--listen", NODE, "--eal", eal(f"dmp{os.getpid()}-node")],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        ready = process.stdout.readline()
        assert "memory=dpdk+" in ready, f"pages are in DPDK's memory: {ready!r}"
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)


def use():
    """What the other host does."""
    import pydmrpc as ray

    ray.init(NODE)
    data = bytes(range(256)) * (BYTES // 256)
    ref = ray.put(data)
    assert ray.get(ref, timeout=PATIENCE) == data
    assert ray.get(ray.put({"small": [1, 2.5, None]}), timeout=PATIENCE) == {"small": [1, 2.5, None]}

    @ray.remote
    def double(value):
        return os.getpid(), value + value

    pid, doubled = ray.get(double.remote(ref), timeout=PATIENCE)
    assert pid != os.getpid() and doubled == data + data

    @ray.remote
    class Keeper:
        def keep(self, value):
            self.value = value
            return len(value)

        def part(self, start, end):
            return self.value[start:end]

    keeper = Keeper.remote()
    assert ray.get(keeper.keep.remote(ref), timeout=PATIENCE) == len(data)
    assert ray.get(keeper.part.remote(1_000, 900_000), timeout=PATIENCE) == data[1_000:900_000]
    ray.shutdown()
    print("test-dpdk: python: put, get, a task and an actor over dpdk://: ok")


def main():
    if sys.argv[1] == "use":
        return use()
    with cable() as (left, right), node(sys.argv[1], left):
        environment = os.environ | {
            "DMRPC_DPDK_EAL": eal(f"dmp{os.getpid()}-%n"),
            "DMRPC_DPDK_ADDRESS": "10.9.0.2-10.9.0.9",
        }
        command = ["ip", "netns", "exec", right, sys.executable, __file__, "use"]
        subprocess.run(command, env=environment, check=True, timeout=2 * PATIENCE)


if __name__ == "__main__":
    main()
