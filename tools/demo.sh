#!/usr/bin/env bash
# From a bare Debian 12 to an answer: sets up, builds the lethe executable, fetches and packs a model, shows the memory plan and
# answers one prompt inside it. What is already there is not done again.
#
#   tools/demo.sh [--model NAME] [--ram SIZE] [PROMPT] [-- OPTIONS]
#
#   --model NAME smollm2: SmolLM2-135M-Instruct (default, Apache-2.0); gemma3: Gemma 3 270M, a base model that continues a text
#                (Gemma Terms of Use: https://ai.google.dev/gemma/terms)
#   --ram SIZE   the memory cap (default 64MiB)
#   PROMPT       default: a question (smollm2), the beginning of a sentence (gemma3)
#   OPTIONS      anything else that `lethe run` takes, as in: tools/demo.sh --ram 48MiB "Tell me a story." -- --max-tokens 200
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

ram=64MiB
name=smollm2
prompt=
while (($#)); do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --model) name=${2:?--model needs a name: smollm2 or gemma3}; shift 2 ;;
    --model=*) name=${1#*=}; shift ;;
    --ram) ram=${2:?--ram needs a size, as in 64MiB}; shift 2 ;;
    --ram=*) ram=${1#*=}; shift ;;
    --) shift; break ;;
    -*) echo "tools/demo.sh: unknown option $1; options of lethe run come after -- (see --help)" >&2; exit 2 ;;
    *) prompt=$1; shift ;;
  esac
done

options=()
case $name in
  smollm2) model=SmolLM2-135M-Instruct; prompt=${prompt:-What is the capital of France? Answer in one sentence.} ;;
  gemma3)
    model=gemma-3-270m
    prompt=${prompt:-The capital of France is Paris. The capital of Italy is}
    options=(--raw --greedy --max-tokens 24) ;;
  *) echo "tools/demo.sh: no model $name: smollm2 or gemma3" >&2; exit 2 ;;
esac
options+=("$@")

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
say "model: $model"
gguf=$(python3 tools/fetch_model.py "$name")
packed=$LETHE_CACHE/models/$model.lethe
packed_model "$gguf" "$packed"
say "the memory plan: lethe plan MODEL --ram $ram"
"$lethe" plan "$packed" --ram "$ram"
say "the answer: lethe run MODEL --ram $ram${options[*]:+ ${options[*]}} \"$prompt\""
"$lethe" run "$packed" --ram "$ram" "${options[@]}" "$prompt"
