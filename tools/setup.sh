#!/usr/bin/env bash
# Obtains what the build needs, on Debian 12. Safe to run again: what is already there is skipped.
#
#   tools/setup.sh [--with-aarch64] [--with-fuzzers] [--with-java] [--with-lint] [--with-xnnpack]
#
#   --with-aarch64   also installs a cross compiler and an emulator for 64-bit Arm, and builds the dependencies for it
#   --with-fuzzers   also installs clang 19 (libFuzzer)
#   --with-java      also installs a JDK and Maven, and obtains the Java libraries of platform/android (100 MB)
#   --with-lint      also installs clang-format 19 and clang-tidy 19
#   --with-xnnpack   also builds XNNPACK (about two minutes)
#
# Debian packages come through apt-get (as root, or with sudo). Highway and minja are newer than Debian 12 has them:
# pinned, from newer suites of the same mirror, checked against a SHA-256 and built into $LETHE_CACHE/deps/host (for Arm:
# deps/aarch64).
# LETHE_CACHE defaults to ~/.cache/lethe. The machine's list of package sources is not changed.
# MINJA_INCLUDE_DIR=DIR takes minja's headers from DIR/minja instead of from the mirror.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

aarch64=0 fuzzers=0 java=0 lint=0 xnnpack=0
for arg; do
  case $arg in
    --with-aarch64) aarch64=1 ;;
    --with-fuzzers) fuzzers=1 ;;
    --with-java) java=1 ;;
    --with-lint) lint=1 ;;
    --with-xnnpack) xnnpack=1 ;;
    -h | --help) usage; exit 0 ;;
    *) echo "tools/setup.sh: unknown option $arg (see --help)" >&2; exit 2 ;;
  esac
done

packages=(g++ cmake ninja-build ccache python3 xz-utils ca-certificates libpcre2-dev libflatbuffers-dev
  flatbuffers-compiler nlohmann-json3-dev libcli11-dev doctest-dev libxxhash-dev
  pkg-config dpkg-dev python3-numpy python3-venv)  # these for tests of what is installed
((aarch64)) && packages+=(g++-aarch64-linux-gnu qemu-user)
((fuzzers)) && packages+=(clang-19 libclang-rt-19-dev llvm-19)
((java)) && packages+=(maven openjdk-17-jdk-headless)
((lint)) && packages+=(clang-format-19 clang-tidy-19)

# Pins: "file sha256 suite". The suites forky and sid move, so a pin from there has a second one from a stable suite.
highway_pins=(
  "highway_1.3.0.orig.tar.gz 07b3c1ba2c1096878a85a31a5b9b3757427af963b1141ca904db2f9f4afe0bc2 forky"
  "highway_1.2.0.orig.tar.gz 7e0be78b8318e8bdbf6fa545d2ecb4c90f947df03f7aadc42c1967f019e63343 trixie")
# Header-only; no stable suite has it.
minja_pins=(
  "libminja-dev_0~git20250922.021c2293c187-2_all.deb 6e01352bfa31c663c8edb8b98e550db6d525e7cfc432f2e655eb4286e1dfdf7a forky")
# The only library that Arm needs in binary form; apt would install it for one architecture alone.
pcre2_arm64_pins=(
  "libpcre2-dev_10.42-1_arm64.deb 741bf236122f890ca3b1a9f6b9570848dd5b35aa558281424001cb1413747c90 bookworm")
# Only XNNPACK needs the following ones. The older pthreadpool spins until every worker has checked in: on a busy machine a
# call then waits for a scheduler slice.
pthreadpool_pins=(
  "pthreadpool_0.0~git20251020.0e6ca13.orig.tar.xz 7a385b6585abe8f8658952c50b44a1dabe200de2c88eabe65d15168b8a82295c forky"
  "pthreadpool_0.0~git20240616.560c60d.orig.tar.xz 4cc3cbd933b28131d2a34edc54f76af9fb41bc490af5eae1a5bd3cd07ea90708 trixie")
fxdiv_pins=(
  "fxdiv_0.0~git20200417.b408327.orig.tar.xz 7953482badaf4cb34026c3487c257b8e4ab2df061c019bd6fabbbc12ad52c44b trixie")
# No older tarball of cpuinfo is on the mirror.
cpuinfo_pins=(
  "cpuinfo_0.0~git20250905.877328f.orig.tar.xz 557ca404a3836b9f335a3a06b65ff9fe9dbaaefab7fb5c0185f53d9f33615a10 forky")
xnnpack_pins=(
  "xnnpack_0.0~git20241108.4ea82e5.orig.tar.xz 90bde2caef0f880f627bab0dc805a86c4b8070cd98e3243db3046ab3f3be1a99 trixie")

deps=$LETHE_CACHE/deps
log=$LETHE_CACHE/setup.log
work=$deps/work  # a fixed path, so that ccache recognises the sources; the lock makes it ours
mkdir -p "$deps/tar"

# All detail goes to the log; fd 3 and 4 are what the user sees.
exec 3>&1 4>&2
exec 9>"$deps/lock"
if ! flock --nonblock 9; then
  say "another tools/setup.sh is running: waiting for it"
  flock 9
fi
exec >"$log" 2>&1 </dev/null
progress() { say "$@" | tee -a "$log" >&3; }
explained=0
# die SENTENCE...: for failures whose cause is known.
die() {
  explained=1
  printf '%s\n' "$@" | tee -a "$log" | sed '1s/^/tools\/setup.sh: /' >&4
  exit 1
}
on_exit() {
  local status=$?
  rm -rf "$work"
  ((status == 0 || explained)) && return
  {
    echo "tools/setup.sh: failed. The end of $log:"
    tail -n 25 "$log" | sed 's/^/  | /'
    echo "Running it again continues where it stopped. If it stops at the same place: is the package mirror reachable"
    echo "(apt-get update), is there room on the disk (df -h $LETHE_CACHE)? rm -rf $deps starts afresh."
  } >&4
}
trap on_exit EXIT
trap 'exit 130' INT TERM

on_debian() { grep -qx 'ID=debian' /etc/os-release && command -v apt-get dpkg-query; }
on_debian || die "this script knows Debian 12 only. Elsewhere install, by hand or with the system's package manager:" \
  "  C++20 compiler (GCC 12 or later, clang 16 or later), CMake 3.25, Ninja, Python 3.9, ccache (optional)" \
  "  Highway 1.2 or later, PCRE2 10.40 or later (8-bit library)" \
  "  FlatBuffers 2.0 or later with flatc, nlohmann_json 3.11, minja (2025-09-22), xxHash 0.8, CLI11 2.1, doctest 2.4" \
  "and configure with CMake's usual hints where they are not found by themselves: -DCMAKE_PREFIX_PATH=..., -Dhwy_ROOT=...," \
  "-DMINJA_INCLUDE_DIR=(folder that holds minja/minja.hpp). See docs/building.md."

# --- Debian packages -------------------------------------------------------------------------------------------------

# `python3 -m pip` fetches the test model; a python3 that is not Debian's may bring its own pip.
python3 -c 'import pip' 2>/dev/null || packages+=(python3-pip)
installed=$(dpkg-query --show --showformat='${Package} ${db:Status-Abbrev}\n' "${packages[@]}" || true)
missing=()
for package in "${packages[@]}"; do grep -q "^$package ii" <<<"$installed" || missing+=("$package"); done
if ((${#missing[@]})); then
  as_root=()
  if ((EUID != 0)); then
    command -v sudo || die "these Debian packages are missing: ${missing[*]}" \
      "Neither root nor sudo is at hand. Have them installed, then run this again:" \
      "  apt-get install --no-install-recommends ${missing[*]}"
    as_root=(sudo)
  fi
  progress "installing ${#missing[@]} Debian packages: ${missing[*]}"
  "${as_root[@]}" apt-get -q -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 update
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 \
    install --yes --no-install-recommends "${missing[@]}"
fi

# --- Java libraries --------------------------------------------------------------------------------------------------

# Running a test that needs no native library has Maven fetch everything that a build asks for, so that builds can be offline.
maven_ready=$LETHE_CACHE/maven/.ready
if ((java)) && ! (cd "$root" && sha256sum --check --status "$maven_ready"); then
  progress "obtaining Java libraries"
  (cd "$root" && sha256sum platform/android/pom.xml >"$LETHE_CACHE/maven.sum")
  mvn --batch-mode --strict-checksums --file "$root/platform/android/pom.xml" -Dmaven.repo.local="$LETHE_CACHE/maven" \
    -Dlethe.build="$LETHE_CACHE/maven-try" -Dtest=OptionsTest package ||
    die "cannot obtain the Java libraries that platform/android/pom.xml names from Maven Central (details: $log)"
  rm -rf "$LETHE_CACHE/maven-try"
  mv "$LETHE_CACHE/maven.sum" "$maven_ready"
fi

# --- Pinned sources --------------------------------------------------------------------------------------------------

apt_options=()
# A private apt root: other suites of the mirror that this machine uses, without touching /etc/apt or /var/lib/apt.
open_mirror() {
  ((${#apt_options[@]})) && return
  local apt=$work/apt uri key suite
  uri=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' 'Component: main' |
    awk '$1 !~ /-/ {print $2; exit}')
  key=$(awk '/^Signed-By: *\// {print $2; exit}' /etc/apt/sources.list.d/debian.sources || true)
  key=${key:-/usr/share/keyrings/debian-archive-keyring.gpg}
  [[ $uri ]] || die "apt has no Debian mirror configured (/etc/apt/sources.list or sources.list.d)"
  progress "reading the package lists of the mirror"
  mkdir -p "$apt"/{sources,lists/partial,cache/archives/partial}
  for suite in trixie forky; do
    printf 'Types: deb deb-src\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' "$uri" "$suite" "$key" \
      >"$apt/sources/$suite.sources"
  done
  if ((aarch64)); then
    printf 'Types: deb\nURIs: %s\nSuites: bookworm\nArchitectures: arm64\nComponents: main\nSigned-By: %s\n' "$uri" "$key" \
      >"$apt/sources/arm64.sources"
    apt_options=(-o APT::Architectures::=arm64)
  fi
  # A mirror frozen at some day has an expired Release file. Old lists do no harm: what comes of them is pinned.
  apt_options+=(-q -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$apt/sources" -o Dir::State::Lists="$apt/lists"
    -o Dir::Cache="$apt/cache" -o APT::Sandbox::User=root -o Acquire::Retries=3 -o Acquire::Languages=none
    -o Acquire::Check-Valid-Until=false)
  apt-get "${apt_options[@]}" update
}

have() { echo "$2  $deps/tar/$1" | sha256sum --check --status 2>/dev/null; }

# obtain NAME PIN...: sets $obtained to the first pin's file that is here or can be had.
obtain() {
  local name=$1 pin file sum suite package version architecture
  shift
  obtained=
  for pin; do
    read -r file sum suite <<<"$pin"
    if have "$file" "$sum"; then obtained=$file; break; fi
  done
  if [[ ! $obtained ]]; then
    open_mirror
    for pin; do
      read -r file sum suite <<<"$pin"
      IFS=_ read -r package version architecture <<<"${file%.deb}"
      rm -f "$deps/tar/$file"
      # Only the upstream tarball: Debian's patches are not wanted, and not every mirror keeps every file of them.
      if [[ $file == *.deb ]]; then
        (cd "$deps/tar" && apt-get "${apt_options[@]}" download "$package:$architecture=$version") || continue
      else
        (cd "$deps/tar" && apt-get "${apt_options[@]}" source --tar-only --download-only "$package/$suite") || continue
      fi
      if have "$file" "$sum"; then obtained=$file; break; fi
      echo "$package of $suite: $file is absent or has another SHA-256 than $sum"
    done
  fi
  [[ $obtained ]] || return 1
  if [[ $obtained != "${1%% *}" ]]; then
    progress "warning: ${1%% *} is not on the mirror any more; using the older $obtained"
  fi
}

unobtainable() {
  die "cannot obtain $1: the pinned version is not on the mirror, or the mirror is not reachable (details: $log)." \
    "Either install $1 yourself and configure with -DCMAKE_PREFIX_PATH=..., or update its pin in tools/setup.sh."
}

# unpack FILE FOLDER: an archive may or may not have one folder on top.
unpack() {
  mkdir -p "$work/$2.tmp"
  tar --extract --file "$deps/tar/$1" --directory "$work/$2.tmp"
  local top=("$work/$2.tmp"/*)
  if ((${#top[@]} == 1)); then mv "${top[0]}" "$work/$2"; else mv "$work/$2.tmp" "$work/$2"; fi
}

cmake_options=(-G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_POSITION_INDEPENDENT_CODE=ON -DCMAKE_INSTALL_LIBDIR=lib
  -DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
# build FOLDER PREFIX [cmake options]
build() {
  local name=$1 prefix=$2
  shift 2
  cmake -S "$work/$name" -B "$work/build-$name" "${cmake_options[@]}" -DCMAKE_INSTALL_PREFIX="$prefix" "$@"
  ninja -C "$work/build-$name" install
}

# The result must not depend on the caller's environment; a C library built by GCC serves clang as well.
unset CFLAGS CXXFLAGS CPPFLAGS LDFLAGS
export CC=gcc CXX=g++
rm -rf "$work"

obtain highway "${highway_pins[@]}" || unobtainable Highway; highway=$obtained
minja=
if [[ ${MINJA_INCLUDE_DIR:-} ]]; then
  [[ -f $MINJA_INCLUDE_DIR/minja/minja.hpp ]] || die "MINJA_INCLUDE_DIR=$MINJA_INCLUDE_DIR holds no minja/minja.hpp"
  minja_key=$(cat "$MINJA_INCLUDE_DIR"/minja/*.hpp | sha256sum)
else
  obtain minja "${minja_pins[@]}" || die "cannot obtain ${minja_pins[0]%% *}: not on the mirror any more, or no network." \
    "minja is a few headers: get them from its project (github.com/google/minja, commit 021c2293c187), put them into a" \
    "folder DIR/minja and run MINJA_INCLUDE_DIR=DIR tools/setup.sh (details: $log)"
  minja=$obtained
  minja_key=$minja
fi
pcre2=
if ((aarch64)); then
  obtain "PCRE2 for arm64" "${pcre2_arm64_pins[@]}" || unobtainable "PCRE2 for arm64"; pcre2=$obtained
fi

# --- Builds: a folder named by everything that decides its content, and a stable link to it -----------------------------

highway_options=(-DBUILD_TESTING=OFF -DHWY_ENABLE_TESTS=OFF -DHWY_ENABLE_EXAMPLES=OFF -DHWY_ENABLE_CONTRIB=OFF
  -DHWY_FORCE_STATIC_LIBS=ON)
# dependencies TARGET COMPILER PCRE2 [cmake options]: Highway and minja, and PCRE2 out of a package where one is named. Sets
# $prefix.
dependencies() {
  local target=$1 compiler=$2 pcre2=$3 toolchain key
  shift 3
  toolchain=$("$compiler" -dumpmachine; "$compiler" -dumpfullversion; cmake --version | head -n 1)
  key=$(echo "$toolchain ${cmake_options[*]} ${highway_options[*]} $highway $minja_key${pcre2:+ $pcre2}" |
    sha256sum | cut -c 1-16)
  prefix=$deps/$target-$key
  [[ -f $prefix/.done ]] && return
  rm -rf "$prefix" "$work"/{highway,build-highway,minja,pcre2}
  mkdir -p "$prefix/include/minja"
  progress "building ${highway%%.orig*} ($target)"
  unpack "$highway" highway
  build highway "$prefix" "${highway_options[@]}" "$@"
  if [[ $minja ]]; then
    dpkg-deb --extract "$deps/tar/$minja" "$work/minja"
    cp "$work"/minja/usr/include/minja/*.hpp "$prefix/include/minja/"
  else
    cp "$MINJA_INCLUDE_DIR"/minja/*.hpp "$prefix/include/minja/"
  fi
  if [[ $pcre2 ]]; then
    dpkg-deb --extract "$deps/tar/$pcre2" "$work/pcre2"
    cp "$work"/pcre2/usr/lib/*/libpcre2-8.a "$prefix/lib/"
    cp "$work/pcre2/usr/include/pcre2.h" "$prefix/include/"
  fi
  touch "$prefix/.done"
}

if ((aarch64)); then
  dependencies aarch64 aarch64-linux-gnu-g++ "$pcre2" -DCMAKE_TOOLCHAIN_FILE="$root/toolchains/aarch64-linux.cmake"
  ln -sfn "$(basename "$prefix")" "$deps/aarch64"
fi
dependencies host g++ ""

if ((xnnpack)); then
  obtain pthreadpool "${pthreadpool_pins[@]}" || unobtainable pthreadpool; pthreadpool=$obtained
  obtain fxdiv "${fxdiv_pins[@]}" || unobtainable FXdiv; fxdiv=$obtained
  obtain cpuinfo "${cpuinfo_pins[@]}" || unobtainable cpuinfo; cpuinfo=$obtained
  obtain xnnpack "${xnnpack_pins[@]}" || unobtainable XNNPACK; xnnpack_tar=$obtained
  xnnpack_options=(-DXNNPACK_LIBRARY_TYPE=static -DXNNPACK_BUILD_TESTS=OFF -DXNNPACK_BUILD_BENCHMARKS=OFF
    -DXNNPACK_BUILD_ALL_MICROKERNELS=OFF -DCPUINFO_LIBRARY_TYPE=static -DPTHREADPOOL_LIBRARY_TYPE=static
    -DCPUINFO_SOURCE_DIR="$work/cpuinfo" -DPTHREADPOOL_SOURCE_DIR="$work/pthreadpool" -DFXDIV_SOURCE_DIR="$work/fxdiv")
  stamp=$prefix/.done-xnnpack-$(echo "${xnnpack_options[*]} $xnnpack_tar $pthreadpool $fxdiv $cpuinfo" | sha256sum | cut -c 1-16)
  if [[ ! -f $stamp ]]; then
    progress "building ${xnnpack_tar%%.orig*} (about 150 seconds of CPU time)"
    rm -rf "$work"
    unpack "$fxdiv" fxdiv
    unpack "$pthreadpool" pthreadpool
    unpack "$cpuinfo" cpuinfo
    unpack "$xnnpack_tar" xnnpack
    build xnnpack "$prefix" "${xnnpack_options[@]}"
    touch "$stamp"
  fi
fi

ln -sfn "$(basename "$prefix")" "$deps/host"
progress "dependencies ready: $deps/host"
