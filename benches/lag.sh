#!/bin/bash
# Whether a dead group's lag in seconds is the age of its next record: groups that are 1, 10,000 and 10,000,000 records
# behind, each time against the arrival of that very record as `tail` tells it; then what describing 1,000 groups on 8 shards
# costs, the start of the process included.
#
#   benches/lag.sh [DIR]     data goes to DIR/lag (target): 1 GiB
#
# HIGHWATER names the executable (target/release/highwater), RECORDS the longest backlog. Needs python3. Takes two minutes.
# Exit code: 0 if all are within 10 ms, 1 if not.
set -euo pipefail
cd "$(dirname "$0")/.."
highwater=$(realpath "${HIGHWATER:-target/release/highwater}")
work=$(realpath "${1:-target}")/lag
records=${RECORDS:-10000000}
export HIGHWATER_CONFIG=
rm -rf "$work" && mkdir -p "$work"
trap 'end_all; rm -rf "$work"' EXIT
# shellcheck source=.ci/server
. .ci/server
start_server --cores 0

"$highwater" stream create s --shards 1 >/dev/null
seq "$records" | "$highwater" put s >/dev/null 2>&1
for behind in 1 10000 "$records"; do
    "$highwater" group reset "g$behind" --stream s --to latest --shift-by "-$behind" >/dev/null
done
sleep 2 # nobody reads: all of them grow older
python3 - "$highwater" "$records" <<'PYTHON'
import datetime, json, subprocess, sys, time
highwater, records = sys.argv[1], int(sys.argv[2])
def ask(*args):
    return json.loads(subprocess.run([highwater, *args], check=True, capture_output=True).stdout)
def seconds(text):
    whole, _, fraction = text.rstrip("Z").partition(".")
    return datetime.datetime.fromisoformat(whole + "+00:00").timestamp() + float("0." + (fraction or "0"))
worst = 0.0
for behind in (1, 10_000, records):
    arrived = seconds(ask("tail", "s", "--from", str(records - behind), "--limit", "1", "--format", "json")["arrival"])
    before = time.time()
    shard = ask("group", "describe", f"g{behind}", "--json")["shards"][0]
    after = time.time()
    assert shard["backlog_records"] == behind and shard["exact"], shard
    # The server looked at its clock somewhere between.
    off = max(before - arrived - shard["backlog_seconds"], shard["backlog_seconds"] - (after - arrived), 0.0)
    worst = max(worst, off)
    print(f"{behind:>10,} behind: {shard['backlog_seconds']:.3f} s, at least {off * 1e3:.3f} ms off, asked within {(after - before) * 1e3:.1f} ms")
sys.exit(worst > 0.010)
PYTHON

"$highwater" stream create many --shards 8 >/dev/null
seq 20000 | "$highwater" put many >/dev/null 2>&1
for i in $(seq 1000); do "$highwater" group reset "m$i" --stream many --to oldest >/dev/null; done
for _ in 1 2 3 4 5; do
    before=$(date +%s%N)
    "$highwater" group list --json >"$work/groups"
    echo "1,000 groups of 8 shards: $(($(date +%s%N) / 1000000 - before / 1000000)) ms"
done
