#!/bin/sh
# Our figures and perftest's, of the same device. Under emulation they say what costs what, not what a card would do.
echo "== one-sided reads and messages over our links"
one_sided rdma://127.0.0.1:0 "${1:-500}" || exit 1
for program in ib_read_lat ib_send_lat; do
    $program -d rxe0 -x 1 -s 64 -n 1000 >/dev/null 2>&1 &
    sleep 1
    echo "== perftest: $program, 64 bytes"
    $program -d rxe0 -x 1 -s 64 -n 1000 127.0.0.1 2>&1 | grep -A1 t_typical
    wait
done
for bytes in 4096 65536; do
    ib_read_bw -d rxe0 -x 1 -s $bytes -n 1000 >/dev/null 2>&1 &
    sleep 1
    echo "== perftest: ib_read_bw, $bytes bytes"
    ib_read_bw -d rxe0 -x 1 -s $bytes -n 1000 127.0.0.1 2>&1 | grep -A1 'BW average'
    wait
done
