#!/usr/bin/env bash
# Where the server's time goes: its core's thread sampled under a saturating load, drawn as a flame graph.
#
#   benches/flame.sh OUT.svg [DIR]    data goes to a directory in DIR (target): a file system on the device to be measured
#
# Needs perf, and inferno (cargo install inferno). HIGHWATER names the executable (target/release/highwater). Settings
# (environment): LENGTH seconds [5], FREQUENCY of samples [499], RUN words of the load [-r max --producers 4], and those of
# .ci/common.
set -euo pipefail
out=$(realpath -m "${1:?OUT.svg}")
cd "$(dirname "$0")/.."
# shellcheck source=benches/common
. benches/common flame "${2:-target}"
for tool in perf inferno-collapse-perf inferno-flamegraph; do
  command -v $tool >/dev/null || die "$tool is not installed"
done
length=${LENGTH:-5}
serve
thread=$(grep -lx core-0 /proc/"$server"/task/*/comm | head -1 | cut -d/ -f5)
[ -n "$thread" ] || die "no thread of core 0: $(cat /proc/"$server"/task/*/comm | tr '\n' ' ')"
# shellcheck disable=SC2086
load run run ${RUN:--r max --producers 4} -d "$((length + 4))s" --warmup 0s --retention-bytes 1GiB &
sleep 3
perf record -q -F "${FREQUENCY:-499}" --call-graph dwarf,16384 -t "$thread" -o "$work/perf" -- sleep "$length"
wait $! || true
perf script -i "$work/perf" 2>/dev/null | inferno-collapse-perf >"$work/folded"
inferno-flamegraph --title "highwater serve, one core: $(basename "$out" .svg)" --minwidth 0.3 --width 1200 <"$work/folded" >"$out"
# The leaves, for who reads no pictures.
awk '{ n = $NF; $NF = ""; k = split($0, f, ";"); sum[f[k]] += n; all += n } END { for (s in sum) printf "%5.1f %%  %s\n", 100 * sum[s] / all, s }' \
  "$work/folded" | sort -rn | head -25
