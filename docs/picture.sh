#!/bin/sh
# The picture of the README, from the recording beside this script. Same recording, same bytes: a test compares them.
#
#   docs/picture.sh            draws docs/picture.svg anew from docs/demo.rec
#   docs/picture.sh --record   records docs/demo.rec anew first: the demo's first minute
#
# HIGHWATER names the executable (target/release/highwater).
set -eu
cd "$(dirname "$0")/.."
highwater=${HIGHWATER:-target/release/highwater}
# Nothing but what is said here.
export HIGHWATER_CONFIG=

if [ "${1-}" = --record ]; then
    # On the device of the build, as a server's data would be; /tmp is often in memory.
    dir=$(mktemp -d target/picture-XXXXXX)
    trap 'kill $(jobs -p) 2>/dev/null; wait; rm -rf "$dir"' EXIT
    "$highwater" demo --dir "$dir/data" --duration 70s >/dev/null 2>"$dir/said" &
    until target=$(sed -n 's/^demo server on \([^,]*\),.*/\1/p' "$dir/said") && [ -n "$target" ]; do sleep 0.1; done
    # The group `archive` is then away for the second time, for ten seconds now.
    timeout 61 "$highwater" top -t "$target" --jsonl --record "$dir/whole.rec" >/dev/null || [ $? = 124 ]
    # What this picture does not show is left out, and neighbouring buckets are one: a twentieth of the size.
    python3 - "$dir/whole.rec" >docs/demo.rec <<'PY'
import json, sys

CORE = "core cpu taken_ns uptime_ns busy_ns connections buffer_used buffer_capacity write propagation".split()
SHARD = "stream stream_id shard core state records_in bytes_in records_out bytes_out oldest high_water " \
    "stored_bytes log_bytes retention_bytes".split()

def thin(value):
    """Of a distribution neighbours within 5 % become one bucket."""
    if not isinstance(value, dict):
        return value
    kept = []
    for middle, count in value["buckets"]:
        if kept and middle < kept[-1][0] * 1.05:
            kept[-1][1] += count
        else:
            kept.append([middle, count])
    return {**value, "buckets": kept}

def some(of, names):
    """What is zero is left out too: it is when it is not said."""
    return {name: thin(of[name]) for name in names if of[name]}

for line in open(sys.argv[1]):
    sample = json.loads(line)
    if "target" in sample:
        sample["target"] = "demo"
    if "snapshot" in sample:
        snapshot = sample["snapshot"]
        snapshot["cores"] = [some(core, CORE) for core in snapshot["cores"]]
        snapshot["shards"] = [some(shard, SHARD) for shard in snapshot["shards"]]
        snapshot["groups"] = [some(group, group) for group in snapshot["groups"]]
    print(json.dumps(sample, separators=(",", ":"), ensure_ascii=False))
PY
fi

"$highwater" top --replay docs/demo.rec --svg docs/picture.svg --size 100x36 --slo 10ms --color always --theme dark --glyphs braille
