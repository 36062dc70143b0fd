"""Bytes read and written by Arrow Flight: a server in a process of its own, and one connection for each that is under way.

It moves tables, so bytes are a column of one large binary value. Server and client are those of the C++ library; what is written here is
glue.
"""

import concurrent.futures
import os
import subprocess
import sys
import threading
import time

import numpy as np
import payload
import pyarrow
import pyarrow.flight
import turns

LEAST_OBJECT_BYTES = 64 << 20


def table_of(data, place, size):
    """A part of an array as a record batch, without a copy."""
    column = pyarrow.Array.from_buffers(pyarrow.uint8(), size, [None, pyarrow.py_buffer(data[place : place + size])])
    return pyarrow.record_batch([column], ["bytes"])


class Server(pyarrow.flight.FlightServerBase):
    """Gives parts of what it has, by size and place, and takes what it is sent."""

    def __init__(self):
        super().__init__("grpc://127.0.0.1:0")
        self.data = payload.array(LEAST_OBJECT_BYTES)

    def do_get(self, context, ticket):
        size, place = map(int, ticket.ticket.decode().split())
        if size > len(self.data):
            self.data = payload.array(size)
        batch = table_of(self.data, place, size)
        return pyarrow.flight.RecordBatchStream(pyarrow.RecordBatchReader.from_batches(batch.schema, [batch]))

    def do_put(self, context, descriptor, reader, writer):
        taken = sum(chunk.data.num_rows for chunk in reader)
        writer.write(str(taken).encode())


def serve():
    server = Server()
    print(server.port, flush=True)
    # Ends with its input.
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    server.serve()


def place_of(n, size, whole):
    return ((n + 1) * 0x9E3779B97F4A7C15 % (1 << 64) >> 32) % (whole // size) * size


class Client:
    def __init__(self, port):
        self.connection = pyarrow.flight.connect(f"grpc://127.0.0.1:{port}")

    def read(self, size, place):
        reader = self.connection.do_get(pyarrow.flight.Ticket(f"{size} {place}".encode()))
        (chunk,) = list(reader)
        return np.frombuffer(chunk.data.column(0).buffers()[1], np.uint8, size)

    def write(self, data, size, place):
        batch = table_of(data, place, size)
        descriptor = pyarrow.flight.FlightDescriptor.for_command(b"bytes")
        writer, answers = self.connection.do_put(descriptor, batch.schema)
        writer.write_batch(batch)
        writer.done_writing()
        if int(answers.read().to_pybytes()) != size:
            raise SystemExit("the server took something else")
        writer.close()


def main():
    server = subprocess.Popen([sys.executable, __file__, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    port = int(server.stdout.readline())
    clients, threads = [], concurrent.futures.ThreadPoolExecutor(64)
    made = {}

    def turn(way, case, seconds):
        size, lanes = case["size"], case["load"]["in_flight"]
        whole = max(size, LEAST_OBJECT_BYTES)
        if whole not in made:
            made.clear()
            made[whole] = payload.array(whole)
        data = made[whole]
        while len(clients) < lanes:
            clients.append(Client(port))
        answer = payload.sum64(data[:size])

        def once(client, n):
            place = place_of(n, size, whole)
            if case["direction"] == "write":
                client.write(data, size, place)
            elif client.read(size, place)[size - 1] != data[place + size - 1]:
                raise SystemExit("other bytes came than were sent")

        if payload.sum64(clients[0].read(size, 0)) != answer:
            raise SystemExit("other bytes came than were sent")
        begun = time.perf_counter()

        def lane(number):
            latencies, n, before = [], number, begun
            while before - begun < seconds:
                once(clients[number], n)
                now = time.perf_counter()
                latencies.append((now - before) * 1e6)
                before, n = now, n + lanes
            return latencies

        latencies = [latency for found in threads.map(lane, range(lanes)) for latency in found]
        return turns.result(latencies, time.perf_counter() - begun, f"{answer:016x}")

    turns.take(turn)
    server.stdin.close()
    server.wait()


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else main()
