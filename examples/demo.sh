#!/usr/bin/env bash
# make demo: record two examples, unmodified, and look at what they left.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}"
out=runs/demo-$(date +%Y%m%d-%H%M%S)

say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; }
run() { say "$*"; "$@"; }

run thalweg record --out "$out/digits" examples/digits_cnn.py --epochs 8
run thalweg show "$out/digits"
run thalweg record --out "$out/text" examples/char_transformer.py --steps 40
run thalweg show "$out/text"
run thalweg doctor "$out/digits" || true
run thalweg report "$out/text"
run thalweg show "$out/text" --instrument dormant_fraction --parts
echo
echo "Your own script: .venv/bin/thalweg record train.py"
