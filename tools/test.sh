#!/usr/bin/env bash
# Sets up, builds and tests everything; the last line is "N passed, N failed", over ctest's tests and the fuzz targets.
#
#   tools/test.sh [--quick]
#
#   --quick   the release build only: no 64-bit Arm, no sanitizers, no fuzzing
#
# Tests run in the presets release and asan (address and undefined-behaviour sanitizers), with SmolLM2 packed as it is and as
# f32, and Gemma 3; between them those of the kernels in aarch64 (in an emulator). Every fuzz target (tests/fuzz/*_fuzz.cc)
# then runs for a minute from its corpus (tests/fuzz/corpus/NAME).
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

quick=0
for arg; do
  case $arg in
    --quick) quick=1 ;;
    -h | --help) usage; exit 0 ;;
    *) echo "tools/test.sh: unknown option $arg (see --help)" >&2; exit 2 ;;
  esac
done

passed=0 failed=0 failures=()
work=$(mktemp -d)
finish() {
  local status=$?
  rm -rf "$work"
  if ((status)) && ((failed == 0)); then fail "tools/test.sh (stopped with status $status)"; fi
  if ((failed)); then printf 'failed: %s\n' "${failures[@]}"; fi
  echo "$passed passed, $failed failed"
  ((status == 0 && failed == 0)) || exit 1
}
trap finish EXIT
trap 'exit 130' INT TERM
fail() { failed=$((failed + 1)); failures+=("$1"); }

# build PRESET [options of cmake --build]: one that fails counts as one failed test; what it would have run is not run.
build() {
  local preset=$1
  shift
  say "build: $preset"
  if { cmake --preset "$preset" && cmake --build --preset "$preset" "$@"; } >"$work/build.log" 2>&1; then return; fi
  tail -n 60 "$work/build.log"
  fail "build of preset $preset"
  return 1
}

# run_tests PRESET [options of ctest]
run_tests() {
  local preset=$1 total broken
  shift
  say "tests: $preset"
  ctest --test-dir "build/$preset" --parallel "$(nproc)" --output-on-failure --timeout 900 "$@" 2>&1 | tee "$work/ctest.log" || true
  read -r broken total < <(sed -n 's/.* tests passed, \([0-9]*\) tests failed out of \([0-9]*\)$/\1 \2/p' "$work/ctest.log") ||
    { fail "ctest of preset $preset ran no tests"; return; }
  passed=$((passed + total - broken)) failed=$((failed + broken))
  # ctest lists the failed ones as "    3 - name (Failed)".
  while read -r line; do failures+=("$preset: $line"); done < <(
    sed -n '/^The following tests FAILED/,$s/^[[:space:]]*[0-9]* - //p' "$work/ctest.log")
}

# fuzz TARGET: a finding is kept in build/fuzz/findings.
fuzz() {
  local target=$1 seeds=tests/fuzz/corpus/${1%_fuzz}
  mkdir -p "$work/$target" build/fuzz/findings
  if [[ -d $seeds ]]; then cp -r "$seeds/." "$work/$target"; fi
  "build/fuzz/$target" -max_total_time=60 -timeout=10 -rss_limit_mb=2048 -verbosity=0 -print_final_stats=1 \
    -artifact_prefix="build/fuzz/findings/$target-" "$work/$target" >"$work/$target.log" 2>&1
}

cd "$root"
options=(--with-java)
((quick)) || options+=(--with-aarch64 --with-fuzzers)
tools/setup.sh "${options[@]}"
gguf=$(python3 tools/fetch_model.py)
gemma=$(python3 tools/fetch_model.py gemma3)

if build release; then
  export LETHE_CLI=$lethe
  export LETHE_TEST_MODEL=$LETHE_CACHE/models/SmolLM2-135M-Instruct.lethe
  export LETHE_TEST_MODEL_F32=$LETHE_CACHE/models/SmolLM2-135M-Instruct.f32.lethe
  export LETHE_TEST_MODEL_GEMMA=$LETHE_CACHE/models/gemma-3-270m.lethe
  packed_model "$gguf" "$LETHE_TEST_MODEL"
  packed_model "$gguf" "$LETHE_TEST_MODEL_F32" --type f32
  packed_model "$gemma" "$LETHE_TEST_MODEL_GEMMA"
  run_tests release
  if ((!quick)) && build aarch64 --target kernels_test; then run_tests aarch64 --tests-regex '^kernels_'; fi
  if ((!quick)) && build asan; then run_tests asan; fi
fi

if ((!quick)) && build fuzz; then
  targets=()
  for source in tests/fuzz/*_fuzz.cc; do targets+=("$(basename "$source" .cc)"); done
  say "fuzzing, one minute each: ${targets[*]}"
  jobs=()
  for target in "${targets[@]}"; do
    while (($(jobs -rp | wc -l) >= $(nproc))); do wait -n || true; done
    fuzz "$target" &
    jobs+=($!)
  done
  for i in "${!targets[@]}"; do
    if wait "${jobs[i]}"; then
      passed=$((passed + 1))
      say "${targets[i]}: $(sed -n 's/^stat::number_of_executed_units: *//p' "$work/${targets[i]}.log") inputs"
    else
      tail -n 60 "$work/${targets[i]}.log"
      fail "fuzz: ${targets[i]} (see build/fuzz/findings)"
    fi
  done
fi
say "done"
