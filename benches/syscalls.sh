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
dir=$(realpath "${1:-target}")/syscalls
bound=${BOUND:-0.02}
command -v perf >/dev/null || { echo "perf is not installed (apt-get install linux-perf)" >&2; exit 1; }
pids=()
cleanup() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
    rm -rf "$dir"
}
trap cleanup EXIT
rm -rf "$dir" && mkdir -p "$dir"
export HIGHWATER_CONFIG=

"$highwater" serve --data "$dir/data" --listen 127.0.0.1:0 --cores 0 >"$dir/listening" 2>"$dir/serve" &
server=$!
pids+=("$server")
until grep -q "listening on" "$dir/listening"; do
    kill -0 "$server" 2>/dev/null || { cat "$dir/serve" >&2; exit 1; }
    sleep 0.1
done
export HIGHWATER_TARGET=$(sed -n 's/.*listening on //p' "$dir/listening")

"$highwater" load run -r max -d 8s --warmup 2s --size 1KiB --producers 4 --consumers 0 --cores 1 --view none \
    --json "$dir/load" >/dev/null 2>"$dir/load.err" &
load=$!
pids+=("$load")
sleep 4
# What a thread of the kernel does for the ring is no call: only what crosses the border counts.
calls=(io_uring_enter read recvfrom recvmsg write writev sendto sendmsg epoll_wait futex)
events=$(printf 'syscalls:sys_enter_%s,' "${calls[@]}")
perf stat -x, -o "$dir/perf" -e "raw_syscalls:sys_enter,${events%,}" -p "$server" -- sleep 4
wait "$load" || { cat "$dir/load.err" >&2; exit 1; }

rate=$(grep -o '"records_per_s": *[0-9.e+]*' "$dir/load" | head -1 | cut -d: -f2)
awk -F, -v rate="$rate" -v bound="$bound" '
    $3 == "raw_syscalls:sys_enter" { all = $1 }
    $3 ~ /^syscalls:/ && $1 > 0 { sub("syscalls:sys_enter_", "", $3); name[++n] = $3; count[n] = $1 }
    END {
        if (!all || !rate) { print "nothing was counted" > "/dev/stderr"; exit 1 }
        records = rate * 4
        printf "%.0f records/s of 1 KiB acknowledged, %.0f system calls/s: %.4f a record (bound %s)\n", rate, all / 4, all / records, bound
        for (i = 1; i <= n; i++) printf "  %-16s %10.0f/s\n", name[i], count[i] / 4
        exit all / records > bound
    }' "$dir/perf"
