#!/usr/bin/env bash
# Runs each fuzz target for some seconds: `run.sh [SECONDS] [TARGET…]`. Where `cargo fuzz` is installed,
# `cargo fuzz run TARGET` does the same, with an address sanitizer on a nightly toolchain.
#
# The flags are what libFuzzer needs to see which branches are taken; they are the same on stable.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-60}
shift || true
targets=("${@:-}")
[ -n "${targets[0]}" ] || targets=(open manifest lock wheel attestation)

export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
export CARGO_TARGET_DIR="${FUZZ_TARGET_DIR:-$PWD/target}"
host=$(rustc -vV | sed -n 's/^host: //p')
# With `--target`, the flags are not for build scripts.
cargo build --release --quiet --target "$host"

for target in "${targets[@]}"; do
    corpus="corpus/$target"
    mkdir -p "$corpus" "artifacts/$target"
    case $target in
        open) cp -n ../vectors/*/*.envelope "$corpus" ;;
        manifest) for file in ../vectors/valid/*.envelope; do
            python3 -c 'import sys, zipfile; sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read("manifest.json"))' "$file" > "$corpus/$(basename "$file").json"
        done ;;
        lock) python3 -c 'import sys, zipfile; sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read("environment/pylock.toml"))' \
            ../vectors/valid/lock-of-an-index.envelope > "$corpus/index.toml" ;;
        wheel) python3 -c 'import sys, zipfile; sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read("environment/wheels/pricing-1.0-py3-none-any.whl"))' \
            ../vectors/valid/carried-wheel.envelope > "$corpus/pricing.whl" ;;
    esac
    echo "=== $target, $seconds s"
    "$CARGO_TARGET_DIR/$host/release/$target" "$corpus" -max_total_time="$seconds" -timeout=2 -rss_limit_mb=512 \
        -max_len=20000 -print_final_stats=1 -artifact_prefix="artifacts/$target/" 2>&1 | tail -n 12
done
