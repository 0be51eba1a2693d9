#!/bin/bash
# How true a replay is, as docs/performance.md tells it: a stream recorded as a Poisson process (400 records/s over two
# shards, 20 s) is replayed at its original speed and at 10x into another stream; first what the replay says of itself,
# then what the arrivals at the server say, compared record by record.
#
#   benches/replay.sh [DIR]     data goes to DIR/replay (target): a file system on the device to be measured
#
# HIGHWATER names the executable (target/release/highwater). Needs python3. Takes a minute.
set -euo pipefail
cd "$(dirname "$0")/.."
highwater=$(realpath "${HIGHWATER:-target/release/highwater}")
dir=$(realpath "${1:-target}")/replay
addr=127.0.0.1:7440
export HIGHWATER_CONFIG= HIGHWATER_TARGET=$addr
rm -rf "$dir" && mkdir -p "$dir"
"$highwater" serve --data "$dir/data" --listen $addr --cores 0 --prepared 64MiB >/dev/null 2>"$dir/serve" &
server=$!
trap 'kill $server 2>/dev/null; wait; rm -rf "$dir"' EXIT
until "$highwater" stream list >/dev/null 2>&1; do sleep 0.2; done

"$highwater" load run -r 400 -d 20s --warmup 0s --arrival poisson --linger 0s --shards 2 --size 200 \
    --stream recorded >/dev/null 2>&1 || true
"$highwater" replay recorded --speed max >"$dir/recorded.jsonl" 2>/dev/null
for speed in original 10x max; do
    "$highwater" stream create "$speed" --shards 1 >/dev/null
    echo "== $speed"
    "$highwater" replay recorded --speed $speed --to stream:$speed
    "$highwater" tail "$speed" --format json >"$dir/$speed.jsonl"
    [ $speed = max ] || python3 - "$dir/recorded.jsonl" "$dir/$speed.jsonl" "${speed/original/1x}" <<'PYTHON'
import datetime, json, sys
def arrivals(path):
    times = []
    for line in open(path):
        text = json.loads(line)["arrival"].rstrip("Z")
        whole, _, fraction = text.partition(".")
        seconds = datetime.datetime.fromisoformat(whole + "+00:00").timestamp()
        times.append(int(seconds) * 10**9 + int((fraction + "0" * 9)[:9]))
    return times
recorded, again = arrivals(sys.argv[1]), arrivals(sys.argv[2])
speed = float(sys.argv[3].rstrip("x"))
assert len(recorded) == len(again), (len(recorded), len(again))
gaps = zip(zip(recorded, recorded[1:]), zip(again, again[1:]))
off = sorted(abs((d - c) - (b - a) / speed) / 1e6 for (a, b), (c, d) in gaps)
at = lambda q: off[min(len(off) - 1, int(q * len(off)))]
span = (again[-1] - again[0]) / ((recorded[-1] - recorded[0]) / speed)
print(f"at the server: gaps off by {at(0.5):.3f} ms at p50, {at(0.99):.3f} ms at p99, {off[-1]:.3f} ms at most; "
      f"{span * 100:.2f} % of the time it should take")
PYTHON
done
