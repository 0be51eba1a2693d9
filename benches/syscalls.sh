#!/bin/bash
# System calls of a server for each record of 1 KiB that it acknowledges as durable, as fast as it takes them; fails
# above BOUND (0.02). Needs perf and the right to trace (root). Takes 15 seconds.
#
#   benches/syscalls.sh [DIR]     data goes to DIR/syscalls (target): a file system on the device to be measured
#
# HIGHWATER names the executable (target/release/highwater); the server runs on CPU 0 and the generator on CPU 1.
set -euo pipefail
cd "$(dirname "$0")/.."
highwater=$(realpath "${HIGHWATER:-target/release/highwater}")
work=$(realpath "${1:-target}")/syscalls
bound=${BOUND:-0.02}
command -v perf >/dev/null || { echo "perf is not installed (apt-get install linux-perf)" >&2; exit 1; }
rm -rf "$work" && mkdir -p "$work"
trap 'end_all; rm -rf "$work"' EXIT
# shellcheck source=.ci/server
. .ci/server
export HIGHWATER_CONFIG=
start_server --cores 0

"$highwater" load run -r max -d 8s --warmup 2s --size 1KiB --producers 4 --consumers 0 --cores 1 --view none \
    --json "$work/load" >/dev/null 2>"$work/load.err" &
load=$!
sleep 4
# What a thread of the kernel does for the ring is no call: only what crosses the border counts.
calls=(io_uring_enter read recvfrom recvmsg write writev sendto sendmsg epoll_wait futex)
events=$(printf 'syscalls:sys_enter_%s,' "${calls[@]}")
perf stat -x, -o "$work/perf" -e "raw_syscalls:sys_enter,${events%,}" -p "$server" -- sleep 4
wait "$load" || { cat "$work/load.err" >&2; exit 1; }

rate=$(grep -o '"records_per_s": *[0-9.e+]*' "$work/load" | head -1 | cut -d: -f2)
awk -F, -v rate="$rate" -v bound="$bound" '
    $3 == "raw_syscalls:sys_enter" { all = $1 }
    $3 ~ /^syscalls:/ && $1 > 0 { sub("syscalls:sys_enter_", "", $3); name[++n] = $3; count[n] = $1 }
    END {
        if (!all || !rate) { print "nothing was counted" > "/dev/stderr"; exit 1 }
        records = rate * 4
        printf "%.0f records/s of 1 KiB acknowledged, %.0f system calls/s: %.4f a record (bound %s)\n", rate, all / 4, all / records, bound
        for (i = 1; i <= n; i++) printf "  %-16s %10.0f/s\n", name[i], count[i] / 4
        exit all / records > bound
    }' "$work/perf"
