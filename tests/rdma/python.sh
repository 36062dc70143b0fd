#!/bin/sh
# A memory node in the guest, and a Python program that works with it.
export PYTHONHOME=/python
dmrpc-memnode --pool 256MiB --listen rdma://127.0.0.1:7471 >/tmp/node.log 2>&1 &
node=$!
for _ in $(seq 60); do
    grep -q '^dmrpc-memnode ready' /tmp/node.log && break
    sleep 0.5
done
timeout 240 /python/bin/python3 /bin/smoke.py rdma://127.0.0.1:7471
ended=$?
kill $node
wait $node
[ $ended = 0 ] || cat /tmp/node.log
exit $ended
