#!/usr/bin/env bash
# From a bare Debian 12 to an answer: sets up, builds the lethe executable, fetches and packs the test model, shows the memory
# plan and answers one prompt inside it. What is already there is not done again.
#
#   tools/demo.sh [--ram SIZE] [PROMPT] [-- OPTIONS]
#
#   --ram SIZE   the memory cap (default 64MiB)
#   PROMPT       default: What is the capital of France? Answer in one sentence.
#   OPTIONS      anything else that `lethe run` takes, as in: tools/demo.sh --ram 48MiB "Tell me a story." -- --max-tokens 200
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

ram=64MiB
prompt="What is the capital of France? Answer in one sentence."
while (($#)); do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --ram) ram=${2:?--ram needs a size, as in 64MiB}; shift 2 ;;
    --ram=*) ram=${1#*=}; shift ;;
    --) shift; break ;;
    -*) echo "tools/demo.sh: unknown option $1; options of lethe run come after -- (see --help)" >&2; exit 2 ;;
    *) prompt=$1; shift ;;
  esac
done

cd "$root"
say "dependencies"
tools/setup.sh
say "build: build/release/lethe"
log=$LETHE_CACHE/demo-build.log
if ! { cmake --preset release && cmake --build --preset release --target lethe_cli; } >"$log" 2>&1; then
  tail -n 40 "$log" >&2
  echo "tools/demo.sh: the build failed (all of it: $log)" >&2
  exit 1
fi
say "model: SmolLM2-135M-Instruct"
gguf=$(python3 tools/fetch_model.py)
model=$LETHE_CACHE/models/SmolLM2-135M-Instruct.lethe
packed_model "$gguf" "$model"
say "the memory plan: lethe plan MODEL --ram $ram"
"$lethe" plan "$model" --ram "$ram"
say "the answer: lethe run MODEL --ram $ram \"$prompt\"${*:+ $*}"
"$lethe" run "$model" --ram "$ram" "$@" "$prompt"
