# shellcheck shell=bash disable=SC2154,SC1007
# Shared by scripts/ddbg and scripts/test: packages, where to build, whether to build, how to build. Sourced, not run.
# The caller has set $root (the checkout) and $me (the name to speak under). Everything said goes to stderr: stdout belongs
# to the program that is run at the end.

house_say() { printf '%s: %s\n' "$me" "$*" >&2; }
house_die() { house_say "$@"; exit 1; }

# --- where to build -------------------------------------------------------------------------------------------------

# True when an ordinary build in directory $1 can work: files left there by another user make it fail half way.
house_writable() {
  local dir=$1
  if [ -e "$dir" ]; then
    [ -w "$dir" ] || return 1
    [ ! -e "$dir/.ninja_log" ] || [ -w "$dir/.ninja_log" ] || return 1
    [ ! -e "$dir/CMakeCache.txt" ] || [ -w "$dir/CMakeCache.txt" ]
  elif [ -e "$root/build" ]; then
    [ -w "$root/build" ]
  else
    [ -w "$root" ]
  fi
}

# True when what stamp $1 stands for was built in $build after the last change to its sources. Files are compared by time
# and directories too, which covers removed files; it takes 3 ms where `ninja` takes 50.
house_is_fresh() {
  local stamp=$build/.built-$1 sources=() path
  [ -e "$stamp" ] || return 1
  for path in CMakeLists.txt CMakePresets.json scripts/cmake kmod/uapi libdune disasm dtrace-lite; do
    [ ! -e "$root/$path" ] || sources+=("$root/$path")
  done
  [ "$1" != all ] || sources+=("$root/tests")
  # An upgraded library or header is a change too; who cannot rebuild uses what there is.
  [ ! -e /var/lib/dpkg/status ] || [ ! -w "$build" ] || sources+=(/var/lib/dpkg/status)
  [ -z "$(find "${sources[@]}" -newer "$stamp" -print -quit 2>&1)" ]
}

# Sets $build for the thing that stamp $1 stands for: the checkout's build/release where we may write, or where it is ready
# to use; else a folder of this user's cache, one per checkout.
house_choose_build() {
  build=$root/build/release
  if house_writable "$build" || house_is_fresh "$1"; then return; fi
  local cache=${XDG_CACHE_HOME:-${HOME:+$HOME/.cache}} sum
  [ -n "$cache" ] || house_die "cannot write to $root/build, and neither XDG_CACHE_HOME nor HOME says where else to build"
  sum=$(printf %s "$root" | cksum)
  build=$cache/ddbg/${root##*/}-${sum%% *}/release
}

# --- packages -------------------------------------------------------------------------------------------------------

# Prints the packages of the named sections of packages.txt that are neither installed nor replaced by a command in PATH.
house_missing_packages() {
  local section= package command name status wanted=() installed=" "
  while read -r package command _; do
    case $package in
      '' | '#'*) ;;
      '['*) section=${package//[][]/} ;;
      *)
        for name in "$@"; do
          [ "$name" = "$section" ] || continue
          [ -n "$command" ] && command -v "$command" >/dev/null || wanted+=("$package")
        done ;;
    esac
  done <"$root/scripts/packages.txt"
  [ ${#wanted[@]} -gt 0 ] || return 0
  while read -r name status; do
    [ "$status" != installed ] || installed+="$name "
  done < <(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${wanted[@]}" 2>/dev/null)
  for name in "${wanted[@]}"; do
    [[ $installed == *" $name "* ]] || printf '%s\n' "$name"
  done
}

# Installs what the named sections lack, or says how to and exits.
house_packages() {
  # Without apt, CMake says what it does not find. DDBG_NO_APT is for those who built a library themselves.
  [ -z "${DDBG_NO_APT:-}" ] && command -v apt-get >/dev/null && command -v dpkg-query >/dev/null || return 0
  local missing sudo=() install=(apt-get install -y --no-install-recommends) attempt
  mapfile -t missing < <(house_missing_packages "$@")
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
      sudo=(sudo -n)
    else
      house_say "these packages are missing; as root, run:"
      printf '%s %s\n' "${install[*]}" "${missing[*]}" >&2
      exit 1
    fi
  fi
  house_say "installing with apt-get: ${missing[*]}"
  # A fresh machine has no package lists, an old one lists of versions that are gone: then they are fetched and it is tried again.
  for attempt in 1 2 3; do
    if house_quietly "installing packages" "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
        "${install[@]}" -o DPkg::Lock::Timeout=600 "${missing[@]}"; then
      return 0
    fi
    [ $attempt -lt 3 ] || break
    house_quietly "fetching package lists" "${sudo[@]}" apt-get update || true
  done
  house_show_log
  house_die "apt-get could not install: ${missing[*]}"
}

# --- running things quietly -----------------------------------------------------------------------------------------

# Runs a command with its output kept in $house_log, and shows that something goes on if it takes more than half a second:
# a running line on a terminal, one line elsewhere. The exit status is the command's.
house_quietly() {
  local label=$1
  shift
  # Descriptor 9 is the build lock, which no child may keep (apt starts daemons); stdin belongs to the program run at the end.
  "$@" </dev/null 9>&- 2>&1 | house_progress "$label"
  return "${PIPESTATUS[0]}"
}

house_progress() {
  local label=$1 start=${EPOCHREALTIME//[.,]/} line= part step= shown= status
  : >"$house_log"
  while :; do
    status=0
    IFS= read -r -t 0.25 part || status=$?
    line+=$part
    if [ $status -eq 0 ]; then
      printf '%s\n' "$line" >>"$house_log"
      [[ $line =~ ^\[([0-9]+/[0-9]+)\] ]] && step=" ${BASH_REMATCH[1]}"
      line=
    elif [ $status -le 128 ]; then # end of file; above 128 the read only timed out
      [ -z "$line" ] || printf '%s\n' "$line" >>"$house_log"
      break
    fi
    [ $((${EPOCHREALTIME//[.,]/} - start)) -gt 500000 ] || continue
    if [ -t 2 ]; then
      printf '\r%s: %s%s ...\033[K' "$me" "$label" "$step" >&2
    elif [ -z "$shown" ]; then
      house_say "$label ..."
    fi
    shown=1
  done
  [ -z "$shown" ] || [ ! -t 2 ] || printf '\r\033[K' >&2
}

# The log of a failed command: whole, but for the lines that say which files compiled well.
house_show_log() { grep -vE '^\[[0-9]+/[0-9]+\] ' "$house_log" >&2 || true; }

# --- building -------------------------------------------------------------------------------------------------------

# Brings $build up to date: house_build STAMP TARGET "SECTIONS" [CMAKE_OPTION...]. One at a time per build folder; the
# stamp is away while a build runs, so that nobody starts a program that is being linked.
house_build() {
  local stamp=$1 target=$2 sections=$3
  shift 3
  mkdir -p "$build" || house_die "cannot create $build"
  house_log=$build/scripts.log
  exec 9>"$build/.lock"
  if ! flock -n 9; then
    house_say "waiting for another build in $build"
    flock 9
    if house_is_fresh "$stamp"; then
      exec 9>&-
      return
    fi
  fi

  # shellcheck disable=SC2086 # sections are words
  house_packages $sections
  rm -f "$build/.built-$stamp"
  : >"$build/.started" # the stamp to be: a file changed from here on is newer

  local configured= cmake=(cmake --preset release -S "$root" -B "$build" "$@")
  if [ -e "$build/build.ninja" ] && [ -e "$build/CMakeCache.txt" ]; then
    # A checkout that was moved or copied with its build folder starts anew.
    if grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$root" "$build/CMakeCache.txt"; then configured=1; fi
  fi
  if [ -z "$configured" ]; then
    cmake+=(--fresh)
  fi
  if [ -z "$configured" ] || ! house_has_options "$@"; then
    house_quietly "configuring" "${cmake[@]}" || {
      house_show_log
      house_die "CMake could not configure $build"
    }
  fi
  NINJA_STATUS='[%f/%t] ' house_quietly "building $target" ninja -C "$build" "$target" || {
    house_show_log
    house_die "the build failed (in $build)"
  }
  mv "$build/.started" "$build/.built-$stamp"
  exec 9>&-
}

# True when the cache of $build holds each of the -DNAME=VALUE given.
house_has_options() {
  local option name
  for option in "$@"; do
    name=${option#-D}
    grep -qE "^${name%%=*}:[A-Z]+=${name#*=}\$" "$build/CMakeCache.txt" || return 1
  done
}
