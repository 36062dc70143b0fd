#!/bin/sh
# The guest with the memory node. It is ended from outside.
ip link set eth0 mtu 9000
ip addr add 10.7.0.1/24 dev eth0
ip link set eth0 up
rdma link add rxe0 type rxe netdev eth0 || exit 1
exec dmrpc-memnode --pool 256MiB --listen rdma://10.7.0.1:7471
