#!/bin/sh
# The guest with a client of the node in the other one.
ip link set eth0 mtu 9000
ip addr add 10.7.0.2/24 dev eth0
ip link set eth0 up
rdma link add rxe0 type rxe netdev eth0 || exit 1
export DMRPC_TEST_URL=rdma://10.7.0.1:7471
objstore-rdma --exact a_node_on_another_host --ignored --nocapture
