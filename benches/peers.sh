#!/bin/bash
# Highwater beside NATS JetStream, Redis Streams and RabbitMQ Streams: the same load on each, in turn, at equal durability
# and at each one's default; as docs/performance.md shows it. Prints a table, and keeps it with every run's report.
#
#   benches/peers.sh [DIR] [OPTION...]   data goes to a directory of its own in DIR (target): the device to be measured
#
# ROUNDS (5), LENGTH of what is measured of each run (5s), WARMUP (2s), SIZES of records (1KiB,100),
# RIVALS (nats,redis,rabbitmq), SERVER_CPUS (0), LOAD_CPUS (1): see --help of the binary for these and for other OPTIONs,
# such as a server's executable. HIGHWATER names Highwater's (target/release/highwater, which is built if it is missing).
# OUT (target/peers) is where table.md and reports.jsonl go.
#
# Five rounds of all three take about 25 minutes. The servers that are missing are installed where that is possible
# (INSTALL=no does without).
set -euo pipefail
cd "$(dirname "$0")/.."
dir=${1:-target}
[ $# -gt 0 ] && shift
rivals=${RIVALS:-nats,redis,rabbitmq}
highwater=${HIGHWATER:-target/release/highwater}
out=${OUT:-target/peers}
mkdir -p "$dir" "$out"

missing=()
for rival in ${rivals//,/ }; do
    case $rival in
    nats | redis) command -v "$rival-server" >/dev/null || missing+=("$rival-server") ;;
    rabbitmq) [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || missing+=(rabbitmq-server) ;;
    esac
done
if [ ${#missing[@]} -gt 0 ] && [ "${INSTALL:-yes}" = yes ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing ${missing[*]}" >&2
    apt-get update -qq
    # RUNLEVEL: packages do not start services of their own.
    RUNLEVEL=1 apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
fi

if [ -z "${HIGHWATER:-}" ] && [ ! -x "$highwater" ]; then
    cargo build --release --locked --bin highwater
fi
cargo build --release --locked --manifest-path benches/peers/Cargo.toml

# In its place, so that a signal reaches what ends the servers.
exec benches/peers/target/release/highwater-peers --dir "$dir" --highwater "$highwater" --rivals "$rivals" \
    --rounds "${ROUNDS:-5}" --length "${LENGTH:-5s}" --warmup "${WARMUP:-2s}" --sizes "${SIZES:-1KiB,100}" \
    --server-cpus "${SERVER_CPUS-0}" --load-cpus ${LOAD_CPUS-1} \
    --out "$out/table.md" --reports "$out/reports.jsonl" "$@"
