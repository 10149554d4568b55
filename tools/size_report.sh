#!/usr/bin/env bash
# Prints the size of the library as an app would ship it: liblethe.so of every build that has one, stripped.
#
#   tools/size_report.sh
#
# A build has it after: cmake --build --preset PRESET --target lethe_shared
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

case ${1:-} in
  '') ;;
  -h | --help) usage; exit 0 ;;
  *) echo "tools/size_report.sh: unknown option $1 (see --help)" >&2; exit 2 ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
found=0
for library in "$root"/build/*/liblethe.so; do
  [[ -f $library ]] || continue
  found=1
  build=$(dirname "$library")
  strip=$(sed -n 's/^CMAKE_STRIP:FILEPATH=//p' "$build/CMakeCache.txt")  # of the build's own target
  "$strip" -o "$work/stripped" "$library"
  bytes=$(stat --format %s "$work/stripped")
  processor=$(readelf --file-header "$library" | sed -n 's/^ *Machine: *//p')
  awk -v bytes="$bytes" -v name="$(basename "$build")" -v processor="$processor" \
    'BEGIN {printf "%-10s %-32s %9d bytes  %.2f MiB\n", name, processor, bytes, bytes / 1048576}'
done
((found)) || { echo "tools/size_report.sh: no build has liblethe.so: cmake --build --preset release --target lethe_shared" >&2; exit 1; }
