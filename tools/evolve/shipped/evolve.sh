#!/usr/bin/env bash
# How the shipped NAMM came about: `namm` is the mean after six generations of a run of twenty, `log.jsonl` the log of all and
# docs/images/namm_evolution.svg its curve. An interrupted run goes on when it is started again.
#
#   tools/evolve/shipped/evolve.sh MODEL OUT NOVEL TREATISE [OPTIONS OF lethe evolve]
#
#   MODEL     SmolLM2-135M-Instruct from its Q4_1 file, packed
#   OUT       folder of the run
#   NOVEL     Mary Shelley's Frankenstein (Project Gutenberg 84), paragraphs unwrapped   XXH64 da2884b50047fcff
#   TREATISE  Isaac Newton's Opticks (Project Gutenberg 33504)                           XXH64 90098371906d822d
#
# Half of the prompts are streams, half hide a fact in the text; half have 512 tokens and half 1,024; a quarter of the full
# cache's bytes. A bias far above 0 leaves all forgetting to the cap.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../../common.sh"

model=${1:?a model file} out=${2:?a folder} novel=${3:?a novel} treatise=${4:?a treatise}
shift 4
exec "$lethe" evolve "$model" --out "$out" --text "$novel" --text "$treatise" \
  --tasks stream,passkey,stream,niah-single-2 --lengths 512,1024 --kv-fraction 0.25 --signal likelihood \
  --network linear --inputs log-attention,log-recency,key-norm,key-cosine,value-norm --bias 20 --sigma 0.3 \
  --population 10 --prompts 12 --generations 6 --held-out 48 --check-every 10 --seed 1 "$@"
