#!/usr/bin/env bash
# How the cost of a record grows: CPU time of the server per record, by size of record, connections, shards, and data
# stored. CPU time, not records per second: on a shared machine it is what can be compared. Each row at a fixed rate, with
# a consumer that reads it all; the rows of a group in turn, ROUNDS times. About five minutes.
#
#   benches/growth.sh [DIR]       data goes to a directory in DIR (target)
#
# HIGHWATER names the executable (target/release/highwater). Settings (environment): ROUNDS [3], LENGTH of a run in seconds
# [4], DATA for the last group, GiB [0 1 4 8], PARTS of it all [size connections shards data], and those of .ci/common.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=benches/common
. benches/common growth "${1:-target}"
rounds=${ROUNDS:-3}
length=${LENGTH:-4}
fresh() {
  [ -z "$server" ] || { kill "$server" && wait "$server" || true; }
  server=
  rm -rf "$work/data"
  serve
}

# point GROUP ROW WORDS...: one run; a line "GROUP<tab>ROW<tab>nanoseconds per record" to $work/points.
points=0
point() {
  local group=$1 row=$2 before after name=p$points
  shift 2
  points=$((points + 1))
  before=$(cpu)
  load "$name" run -d "${length}s" --warmup 1s --stream "$name" --retention-bytes 1GiB "$@"
  after=$(cpu)
  "$highwater" stream describe "$name" --json >"$work/shards"
  printf '%s\t%s\t%s\n' "$group" "$row" \
    "$(value "$work/shards" "($after - $before) / max(1, sum(s['acknowledged'] for s in j['shards']))")" >>"$work/points"
  "$highwater" stream delete "$name" >/dev/null
}

for part in ${PARTS:-size connections shards data}; do
  for turn in $(seq "$rounds"); do
    echo "$(date +%T) $part, round $turn of $rounds" >&2
    [ "$part" = data ] || fresh
    case $part in
      size) for size in 100 1024 16384; do SIZE=$size point "size of a record, 20 MB/s" "$size B" -r "$((20000000 / size))"; done ;;
      connections) for n in 1 16 64; do point "connections, 20k/s in batches of 4 KiB" "$n" -r 20k --producers "$n" --batch 4KiB --linger 1s --connections "$n"; done ;;
      # Batches of equal size, however many shards: they wait until they are full.
      shards) for n in 1 16 256 1000; do point "shards, 50k/s in batches of 4 KiB" "$n" -r 50k --shards "$n" --batch 4KiB --linger 2s; done ;;
      data) : ;;
    esac
  done
  if [ "$part" = data ]; then
    fresh
    stored=0
    for gib in ${DATA:-0 1 4 8}; do
      if [ "$gib" -gt "$stored" ]; then
        # As fast as it goes; how long that takes is seen on the way.
        while [ "$(du -sBG "$work/data" | cut -dG -f1)" -lt "$((gib + 1))" ]; do
          load fill run -r max -d 3s --warmup 0s --consumers 0 --stream stored --retention-bytes 0
        done
        stored=$gib
      fi
      for turn in $(seq "$rounds"); do point "data stored, 20k/s" "$gib GiB" -r 20k; done
    done
  fi
done

python3 - "$work/points" "$rounds" <<'PYTHON'
import statistics, sys

groups = {}
for line in open(sys.argv[1]):
    group, row, value = line.rstrip("\n").split("\t")
    groups.setdefault(group, {}).setdefault(row, []).append(float(value))
print(f"CPU time of the server, ns a record; median of {sys.argv[2]}, and all of them")
for group, rows in groups.items():
    print(group)
    first = None
    for row, values in rows.items():
        middle = statistics.median(values)
        first = first or middle
        print(f"  {row:>8} {middle:10,.0f} {middle / first:7.2f}x   {' '.join(f'{v:,.0f}' for v in values)}")
PYTHON
