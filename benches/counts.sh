#!/bin/bash
# Instructions of the engine's parts, counted by Callgrind and held against benches/counts.toml; fails if one takes more
# than it may. Takes a minute besides the build. Needs valgrind.
#
#   benches/counts.sh [--write] [SCENE]
set -euo pipefail
cd "$(dirname "$0")/.."
command -v valgrind >/dev/null || { echo "valgrind is not installed (apt-get install valgrind)" >&2; exit 1; }
cargo build --release --locked -p highwater-benches --bin counts
exec target/release/counts "$@"
