#!/bin/bash
# What watching costs, as docs/performance.md tells it: CPU time a second of the server's snapshots, by its own count,
# with 4, 64 and 272 shards, idle and under 20,000 records/s over all of them; and of the console on a 120x36 terminal.
#
#   benches/watching.sh [DIR]     data goes to DIR/watching (target): a file system on the device to be measured
#
# HIGHWATER names the executable (target/release/highwater). Needs tmux for the console's part. Takes three minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
highwater=$(realpath "${HIGHWATER:-target/release/highwater}")
dir=$(realpath "${1:-target}")/watching
addr=127.0.0.1:7439
export HIGHWATER_CONFIG= HIGHWATER_TARGET=$addr
pids=()
cleanup() {
    tmux -S "$dir/tmux" kill-server 2>/dev/null || true
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
    rm -rf "$dir"
}
trap cleanup EXIT
rm -rf "$dir" && mkdir -p "$dir"

# shellcheck source=.ci/server
. .ci/server

# Microseconds a second that the server counts over 14 s beside this watcher, and those of each of its samples.
cost() { "$highwater" top --once --json --span 14s | grep -o '"snapshot_cost_us":[^,}]*' | cut -d: -f2; }

row() { printf '%-8s %-8s %s\n' "$@"; }
row shards load "counted us/s (bound 1000)"
for case in 1x4 1x64 4x68; do
    streams=${case%x*} shards=${case#*x}
    "$highwater" serve --data "$dir/$case" --listen $addr --cores 0 --prepared 64MiB >/dev/null 2>"$dir/serve" &
    server=$!
    pids+=("$server")
    until "$highwater" stream list >/dev/null 2>&1; do sleep 0.2; done
    # The streams, and records in all shards.
    "$highwater" load run -r 20k -d 2s --warmup 0s --streams "$streams" --shards "$shards" --size 200 \
        --stream watched >/dev/null 2>&1 || true
    # Whatever that was is no longer within the span.
    sleep 12
    row $((streams * shards)) idle "$(cost || true)"
    "$highwater" load run -r 20k -d 60s --warmup 0s --streams "$streams" --shards "$shards" --size 200 \
        --stream watched >/dev/null 2>&1 &
    load=$!
    pids+=("$load")
    sleep 12
    row $((streams * shards)) 20k/s "$(cost || true)"
    if [ "$case" = 1x4 ] && command -v tmux >/dev/null; then
        tmux -S "$dir/tmux" -f /dev/null new-session -d -x 120 -y 36 "exec '$highwater' top -t $addr"
        sleep 3
        console=$(tmux -S "$dir/tmux" display-message -p '#{pane_pid}')
        before=$(cpu "$console")
        sleep 20
        after=$(cpu "$console")
        tmux -S "$dir/tmux" kill-server
        awk -v ns=$((after - before)) 'BEGIN { printf "console  120x36   %.2f %% of a core (bound 3)\n", ns / 2e8 }'
    fi
    kill "$load" 2>/dev/null || true
    wait "$load" 2>/dev/null || true
    kill "$server"
    wait "$server" 2>/dev/null || true
done
