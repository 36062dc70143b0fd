#!/bin/sh
# The guest with a client of the node in the other one.
ip link set eth0 mtu 9000
ip addr add 10.7.0.2/24 dev eth0
ip link set eth0 up
rdma link add rxe0 type rxe netdev eth0 || exit 1
tries=0
until nc -z -w 1 10.7.0.1 7471 2>/dev/null; do
    tries=$((tries + 1))
    [ $tries -lt 60 ] || { echo "there is no node"; exit 1; }
    sleep 1
done
export DMRPC_TEST_URL=rdma://10.7.0.1:7471
objstore-rdma --exact a_node_on_another_host --ignored --nocapture
