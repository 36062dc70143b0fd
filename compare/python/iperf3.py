"""What iperf3 reaches over the loopback: bytes in one direction by one connection, with nobody asking for them piece by piece."""

import json
import shutil
import subprocess
import threading

import payload
import turns

# What it sends and takes at a time, unless told otherwise.
BLOCK_BYTES = 128 << 10


def main():
    program = shutil.which("iperf3")
    if not program:
        raise SystemExit("iperf3 is not installed")
    # Port 0 is no port for it: one of its own choice is asked for by trying.
    for port in range(45201, 45301):
        server = subprocess.Popen([program, "-s", "-B", "127.0.0.1", "-p", str(port), "--forceflush"], stdout=subprocess.PIPE, text=True)
        if any("listening" in line for line in iter(server.stdout.readline, "")):
            break
    else:
        raise SystemExit("iperf3 finds no port to listen at")
    # What else it says is not looked at, and must not fill the pipe.
    threading.Thread(target=server.stdout.read, daemon=True).start()

    def turn(way, case, seconds):
        size = case["size"]
        answer = f"{payload.sum64(payload.array(size)):016x}"
        if not seconds:
            return turns.result([], 0.0, answer)
        # It takes whole seconds or a number of bytes, of which there are enough for about this time.
        amount = max(size, int(seconds * 2e9))
        direction = ["-R"] if case["direction"] == "read" else []
        command = [program, "-c", "127.0.0.1", "-p", str(port), "-n", str(amount), "-l", str(BLOCK_BYTES), "-J", *direction]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["end"]["sum_received"]
        # As so many transfers of this size, one after the other.
        count = found["bytes"] / size
        took = found["seconds"] / count
        return turns.result([took * 1e6], took, answer)

    try:
        turns.take(turn)
    finally:
        server.terminate()
        server.wait()


main()
