# Shared by the scripts of tools/ (sourced): where things are, progress lines, the packed test model.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export LETHE_CACHE=${LETHE_CACHE:-$HOME/.cache/lethe}
mkdir -p "$LETHE_CACHE"
LETHE_CACHE=$(cd "$LETHE_CACHE" && pwd)  # CMake and the tools want it absolute
export CCACHE_DIR=${CCACHE_DIR:-$LETHE_CACHE/ccache} CCACHE_MAXSIZE=${CCACHE_MAXSIZE:-2G}
lethe=$root/build/release/lethe

say() { printf '[%4ds] %s\n' "$SECONDS" "$*"; }

# Prints the comment block at the top of the calling script.
usage() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p;}' "$0"; }

# packed_model GGUF OUT [pack options]: packs again only when the packer or the GGUF file is newer, or OUT is unreadable.
packed_model() {
  local gguf=$1 out=$2
  shift 2
  if [[ -f $out && $out -nt $lethe && $out -nt $gguf ]] && "$lethe" inspect "$out" >/dev/null 2>&1; then return; fi
  say "packing $(basename "$out")"
  if ! "$lethe" pack "$gguf" -o "$out.$$.tmp" "$@"; then
    rm -f "$out.$$.tmp"
    return 1
  fi
  mv "$out.$$.tmp" "$out"
}
