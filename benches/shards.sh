#!/usr/bin/env bash
# What many shards cost: a thousand of them with 10 records/s each (CPU time, propagation, memory), and one busy shard
# among a thousand idle ones against one alone, in turn. About four minutes for ROUNDS=3.
#
#   benches/shards.sh [DIR]       data goes to a directory in DIR (target): a file system on the device to be measured
#
# HIGHWATER names the executable (target/release/highwater). Settings (environment): SHARDS [1000], ROUNDS [3], SIZE of a
# record [1KiB], and those of .ci/common (SERVER_CPUS, LOAD). Bounds, of a machine with two cores: 60 % of a core, 10 ms
# at p99, 256 MiB, 10 %. Exit code: 1 if one is not kept.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=benches/common
. benches/common shards "${1:-target}"
shards=${SHARDS:-1000}
rounds=${ROUNDS:-3}
streams=$(((shards + 199) / 200))
each=$((shards / streams))

# Resident memory of the server, kB.
memory() { sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$server/status"; }
# Until the server has done what it does by itself: new segments written full of zeroes, above all.
settle() {
  local before after
  for _ in $(seq 60); do
    before=$(cpu)
    sleep 1
    after=$(cpu)
    [ $((after - before)) -gt 30000000 ] || return 0
  done
}
stop() { kill "$server" && wait "$server" || true; server=; rm -rf "$work/data"; }
# The figure of a saturating load on one shard.
busy() { settle; load "$1" run -r max -d 4s --warmup 2s --stream busy --shards 1 --consumers 0 --retention-bytes 1GiB; }

for turn in $(seq "$rounds"); do
  serve
  busy "alone-$turn"
  stop
  serve
  echo "idle $(memory)" >"$work/memory-$turn"
  load "many-$turn" run -r "$((10 * shards))" -d 1s --warmup 4s --streams "$streams" --shards "$each" --stream many
  settle
  before=$(cpu) since=$(date +%s%N)
  load "steady-$turn" run -r "$((10 * shards))" -d 8s --warmup 2s --streams "$streams" --shards "$each" --stream many
  echo "$(($(cpu) - before)) $(($(date +%s%N) - since))" >"$work/cpu-$turn"
  echo "loaded $(memory)" >>"$work/memory-$turn"
  busy "among-$turn"
  stop
done

python3 - "$work" "$rounds" "$((streams * each))" <<'PYTHON'
import json, statistics, sys

work, rounds, shards = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
read = lambda name: json.load(open(f"{work}/{name}/run.json"))
turns = range(1, rounds + 1)
median = statistics.median


def cpu(turn):
    used, wall = map(int, open(f"{work}/cpu-{turn}").read().split())
    return 100 * used / wall


memory = [dict(line.split() for line in open(f"{work}/memory-{turn}")) for turn in turns]
steady = [read(f"steady-{turn}")["latency_us"]["propagation"] for turn in turns]
ratios = [read(f"among-{turn}")["records_per_s"] / read(f"alone-{turn}")["records_per_s"] for turn in turns]
rows = [
    (f"{shards} shards, {10 * shards} records/s: CPU of the server, % of a core", [cpu(t) for t in turns], 60, True),
    ("... propagation p50, ms", [s["p50"] / 1e3 for s in steady], None, True),
    ("... propagation p99, ms", [s["p99"] / 1e3 for s in steady], 10, True),
    ("... resident memory, MiB", [int(m["loaded"]) / 1024 for m in memory], 256, True),
    ("... before any record, MiB", [int(m["idle"]) / 1024 for m in memory], None, True),
    (f"one busy shard among {shards} / alone", ratios, 0.9, False),
]
good = True
print(f"{'median of ' + str(rounds):64} {'':>9} {'bound':>8}   all")
for name, values, bound, most in rows:
    value = median(values)
    kept = bound is None or (value <= bound if most else value >= bound)
    good = good and kept
    limit = "" if bound is None else f"{'<=' if most else '>='} {bound:g}"
    print(f"{name:64} {value:9.2f} {limit:>8}   {' '.join(f'{v:.2f}' for v in values)}{'' if kept else '   MISSED'}")
sys.exit(not good)
PYTHON
