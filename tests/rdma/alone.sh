#!/bin/sh
# What runs in the guest: every test that needs a device, all of them on one host; and those that need two NUMA nodes.
rdma link add rxe0 type rxe netdev lo || exit 1
failed=
# Every packet is emulated.
export DMRPC_TEST_MESSAGES=10000
run() {
    echo "== $*"
    "$@" || failed="$failed $1"
}
run rdma-sys-device --include-ignored --test-threads 1
run objstore-rdma --ignored --skip the_other_store --skip a_node_on_another_host --test-threads 1 --nocapture
run actors-remote rdma --ignored --test-threads 1
run fabric-death rdma_ --ignored --test-threads 1
run fabric-one_sided --ignored --test-threads 1
run fabric-conformance rdma:: --skip fake_ --ignored --test-threads 1
run python.sh
run memnode-node_embedded numa --ignored
# Nothing depends on figures, and on a busy host there may be none in time.
timeout 90 dmrpc-micro --fabric rdma --seconds 0.2 || echo "no figure: dmrpc-micro ended with $?, or had not after 90 s"
[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
