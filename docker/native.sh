#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-or-later
#
# A real Orthanc with its Python plugin in the foreground, on any x86-64 Linux that has Debian's
# apt tools: no root, no Docker, nothing installed on the host.
#
#   docker/native.sh run    [--suite SUITE] CONFIG…   start Orthanc with exactly these configuration files
#                                                     (and options of Orthanc, such as --verbose)
#   docker/native.sh fetch  [--suite SUITE]           only download, unpack and install
#   docker/native.sh paths  [--suite SUITE]           print where things are, for `eval` in a shell
#   docker/native.sh python [--suite SUITE] ARG…      the Python that Orthanc embeds, with the plugin's dependencies
#   docker/native.sh pip    [--suite SUITE] PYTHON ARG…  run pip with another Python of this host
#   docker/native.sh forget                           remove everything that was fetched
#   docker/native.sh programs                         fetch the browser and the servers that the tests use, and print where
#                                                     they are, for `eval` (about 150 MB, once)
#
# SUITE is a Debian suite: forky (default) or trixie. The first call downloads about 70 MB; later
# calls start at once. `run` becomes Orthanc itself: a signal sent to this script reaches Orthanc,
# and Orthanc's exit code is this script's.
#
# A configuration file can use three variables, which `run` sets and Orthanc expands inside any string:
#   "Plugins": [ "${ORTHANC_PLUGINS:-/usr/share/orthanc/plugins}/libOrthancPython.so" ]
#   "PythonScript": "${ORTHANC_UPS_HOME:-/opt/orthanc-ups}/plugin/ups_plugin.py"
#   "StorageDirectory": "${ORTHANC_UPS_DATA:-/var/lib/orthanc-ups}"
# The text after `:-` applies on a Debian host or in the project's image, where they are not set.
# Several files are passed to Orthanc as one folder, because it accepts only one path: a relative path
# inside them is then not relative to the file.
#
# Settings from the environment:
#   ORTHANC_UPS_CACHE           the cache of downloads (default: ${XDG_CACHE_HOME:-~/.cache}/orthanc-ups,
#                               for root /var/cache/orthanc-ups, because PostgreSQL runs as another user)
#   ORTHANC_UPS_MORE_PACKAGES   further Debian packages for the tree, such as orthanc-postgresql (default: none)
#   ORTHANC_UPS_SITE            folder of Python packages for Orthanc (default: requirements.txt, installed in the cache)
#   ORTHANC_UPS_HOME            the folder that contains plugin/ (default: this checkout)
#   ORTHANC_UPS_DATA            the folder for Orthanc's data (default: .data/SUITE of this checkout)
#   DEBIAN_MIRROR               base URL of a Debian mirror (default: the one that this host's apt uses)
#   DEBIAN_KEYRING              its signing keys (default: those of the package debian-archive-keyring)
#   ORTHANC_UPS_ACCEPT_EXPIRED  1 accepts a mirror whose signed index has expired

set -euo pipefail

HOME_DIR="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
readonly HOME_DIR
readonly REQUIREMENTS="$HOME_DIR/requirements.txt"
PACKAGES=(orthanc orthanc-python orthanc-dicomweb python3-minimal python3-pip-whl libc-bin locales)
read -r -a more_packages <<<"${ORTHANC_UPS_MORE_PACKAGES:-}"
readonly PACKAGES+=("${more_packages[@]}")
# They use the C library of this host, so their suite is the oldest on which the tests run.
readonly PROGRAMS_SUITE=bookworm
readonly PROGRAMS=(chromium-headless-shell dcmtk fonts-dejavu-core fonts-vlgothic libatomic1 nginx-light postgresql-15)
# Their dependencies that the host has, or that the tests never use (no graphics card, no just-in-time compiler).
readonly NOT_FETCHED=(
    adduser adwaita-icon-theme debconf dpkg hicolor-icon-theme init-system-helpers iproute2 libc-bin libc6
    libgl1-mesa-dri libllvm14 libllvm15 libperl5.36 locales openssl passwd perl perl-base perl-modules-5.36
    postgresql-client-common postgresql-common procps sensible-utils shared-mime-info ssl-cert systemd tar ucf
    x11-common x11-utils xdg-utils xkb-data)
# Increase this number whenever this script unpacks something differently: older trees are then replaced.
readonly TREE_FORMAT=1
readonly KEEP_UNUSED_DAYS=7

say() { printf 'native.sh: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

usage() { sed -n '4,/^$/{s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2; }

# --- where things are -----------------------------------------------------------------------------

locate_cache() {
    local caches="${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}"
    ((EUID != 0)) || caches=/var/cache
    cache="${ORTHANC_UPS_CACHE:-$caches/orthanc-ups}"
}

locate_suite() {
    locate_cache
    mkdir -p "$cache/$suite"
    suite_dir="$(cd "$cache/$suite" && pwd)"
}

key_of() { sha256sum | cut -c1-12; }

locate_trees() {
    local root_key site_key
    locate_suite
    root_key="$(printf '%s\n' "$TREE_FORMAT" "${PACKAGES[@]}" | key_of)"
    site_key="$({ echo "$root_key"; cat "$REQUIREMENTS"; } | key_of)"
    root="$suite_dir/root-$root_key"
    site="$suite_dir/site-$site_key"
}

# Sets the paths that depend on the unpacked tree, whose names contain versions.
locate_programs() {
    local libraries="$root/usr/lib/x86_64-linux-gnu" interpreters wheels
    interpreters=("$root"/usr/bin/python3.[0-9]*)
    wheels=("$root"/usr/share/python-wheels/pip-*.whl)
    python="${interpreters[0]}"
    pip="${wheels[0]}/pip"
    plugins="$root/usr/share/orthanc/plugins"
    loader=("$root/usr/lib64/ld-linux-x86-64.so.2" --library-path
            "$libraries:$root/lib/x86_64-linux-gnu:$root/usr/lib:$root/usr/lib/orthanc:$libraries/blas:$libraries/lapack")
    # Before Debian 13 a package might keep its libraries in /lib.
    [[ -e "${loader[0]}" ]] || loader[0]="$root/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
}

dicom_dictionaries() {
    find "$root/usr/share" \( -name dicom.dic -o -name private.dic \) | sort | paste -sd:
}

# Points programs that look for files under /usr into the tree.
enter_tree() {
    unset LD_PRELOAD LD_LIBRARY_PATH PYTHONSTARTUP PYTHONDONTWRITEBYTECODE
    export PYTHONHOME="$root/usr" PYTHONPATH="${ORTHANC_UPS_SITE-$site}" PYTHONTZPATH="$root/usr/share/zoneinfo"
    export LOCPATH="$root/usr/lib/locale" GCONV_PATH="$root/usr/lib/x86_64-linux-gnu/gconv"
    DCMDICTPATH="$(dicom_dictionaries)"
    export DCMDICTPATH ORTHANC_PLUGINS="$plugins" ORTHANC_UPS_HOME="${ORTHANC_UPS_HOME:-$HOME_DIR}"
    export ORTHANC_UPS_DATA="${ORTHANC_UPS_DATA:-$HOME_DIR/.data/$suite}"
}

# --- fetching -------------------------------------------------------------------------------------

require_host() {
    local tool
    [[ "$(uname -s)-$(uname -m)" == Linux-x86_64 ]] || die "needs Linux on x86-64, this is $(uname -s) on $(uname -m)"
    for tool in apt-get dpkg-deb flock sha256sum tar find; do
        command -v "$tool" >/dev/null || die "needs the command '$tool' (Debian packages apt, dpkg, util-linux, coreutils, tar, findutils)"
    done
    [[ -e /etc/ssl/certs/ca-certificates.crt ]] || die "needs the package ca-certificates, with which pip verifies servers"
}

# Asks the host's apt for its mirror, whatever the format of its configuration.
find_mirror() {
    # shellcheck disable=SC2016  # apt-get expands these names, not the shell
    local fields='$(REPO_URI) $(RELEASE) $(COMPONENT)'
    mirror="${DEBIAN_MIRROR:-$(apt-get indextargets --no-release-info --format "$fields" 'Created-By: Packages' |
        awk '$3 == "main" && $2 !~ /-security/ && $1 ~ /\/debian\/?$/ { print $1; exit }')}"
    [[ -n "$mirror" ]] || die "no Debian mirror in this host's apt configuration (on Ubuntu there is none): install the package debian-archive-keyring and set DEBIAN_MIRROR to the base URL of a mirror"
}

find_keyring() {
    for keyring in "${DEBIAN_KEYRING:-}" /usr/share/keyrings/debian-archive-keyring.{gpg,pgp}; do
        [[ -n "$keyring" && -r "$keyring" ]] && return
    done
    die "no keys of the Debian archive: install the package debian-archive-keyring or set DEBIAN_KEYRING"
}

# A private apt, with its lists, archives and package status (what counts as installed) in $1; proxy, certificates
# and credentials are the host's.
write_apt_configuration() {
    local apt="$1"
    mkdir -p "$apt/lists/partial" "$apt/archives/partial"
    : >"$apt/status"
    printf 'deb [arch=amd64 signed-by=%s] %s %s main\n' "$keyring" "$mirror" "$suite" >"$apt/sources.list"
    cat >"$apt/apt.conf" <<EOF
Dir::State "$apt";
Dir::State::status "$apt/status";
Dir::Cache "$apt";
Dir::Log "$apt";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Architecture "amd64";
#clear APT::Architectures;
APT::Architectures { "amd64"; };
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Install-Pkgs;
#clear DPkg::Post-Invoke;
EOF
    if [[ "${ORTHANC_UPS_ACCEPT_EXPIRED:-0}" == 1 ]]; then
        echo 'Acquire::Check-Valid-Until "false"; Acquire::Check-Date "false";' >>"$apt/apt.conf"
    fi
}

update_package_lists() {
    local apt="$1" log="$1/update.log"
    LC_ALL=C apt-get -c "$apt/apt.conf" update --quiet --error-on=any >"$log" 2>&1 && return
    grep '^[EW]:' "$log" >&2 || true
    if grep -q -i -E 'expired|not valid yet|no longer valid' "$log"; then
        die "the mirror's index of $suite is out of date (or this host's clock is wrong); set ORTHANC_UPS_ACCEPT_EXPIRED=1 to use it anyway"
    fi
    die "cannot read the package lists of $suite from $mirror"
}

# Documentation, translations and build files are not unpacked.
unpack() {
    dpkg-deb --fsys-tarfile "$1" | tar -x -C "$root" --no-same-owner --no-same-permissions --keep-directory-symlink \
        --exclude='./usr/share/doc' --exclude='./usr/share/man' --exclude='./usr/share/locale' \
        --exclude='./usr/include' --exclude='*.a' --exclude='./usr/lib/systemd' --exclude='./usr/lib/*/systemd'
}

make_locale() {
    mkdir -p "$root/usr/lib/locale"
    I18NPATH="$root/usr/share/i18n" "${loader[@]}" "$root/usr/bin/localedef" \
        -i en_US -f UTF-8 "$root/usr/lib/locale/en_US.UTF-8" || say "no locale en_US.UTF-8: Orthanc uses the host's"
}

# Downloads packages of $suite and their dependencies, except NOT_FETCHED, and unpacks them into $root.
fetch_packages() {
    local apt="$suite_dir/apt" package
    find_mirror
    find_keyring
    rm -rf "$root" "$apt"
    mkdir -p "$root"
    write_apt_configuration "$apt"
    update_package_lists "$apt"
    if [[ "$root" == "$suite_dir"/programs-* ]]; then
        printf 'Package: %s\nStatus: install ok installed\nArchitecture: all\nMulti-Arch: foreign\nVersion: 9999\n\n' \
            "${NOT_FETCHED[@]}" >"$apt/status"
    fi
    # apt prints hundreds of lines, of which one is useful to a user.
    if ! LC_ALL=C apt-get -c "$apt/apt.conf" install --quiet --yes --download-only --no-install-recommends "$@" \
            >"$apt/download.log" 2>&1; then
        grep -E '^([EW]:|Err:|  )' "$apt/download.log" >&2 || true
        die "cannot download packages of $suite: $*"
    fi
    say "$(sed -n 's/^Fetched \(.* [kM]B\) in .*/received \1/p' "$apt/download.log"), unpacking"
    for package in "$apt"/archives/*.deb; do unpack "$package"; done
    rm -rf "$apt"
}

fetch_root() {
    say "fetching Orthanc for Debian $suite (about 70 MB) into $root"
    fetch_packages "${PACKAGES[@]}"
    locate_programs
    make_locale
    touch "$root/complete"
}

# The import at the end checks the installation and compiles the modules for a quick start.
fetch_site() {
    say "installing requirements.txt (about 15 MB) into $site"
    rm -rf "$site"
    locate_programs
    (
        enter_tree
        "${loader[@]}" "$python" "$pip" install --quiet --root-user-action ignore --disable-pip-version-check \
            --only-binary=:all: --target "$site" --requirement "$REQUIREMENTS" >&2 &&
        "${loader[@]}" "$python" -c 'import aiohttp, cryptography.x509, defusedxml, msgspec, orjson, psycopg, pydicom, pynetdicom, sqlite3, ssl, zoneinfo'
    ) || die "cannot install requirements.txt"
    touch "$site/complete"
}

# Trees of older pins are removed when they have not been used for a while; a running Orthanc holds their locks.
remove_unused_trees() {
    local tree
    while IFS= read -r tree; do
        [[ "$tree" == "$root" || "$tree" == "$site" ]] && continue
        flock --nonblock "$tree/complete" true 2>/dev/null && rm -rf "$tree"
    done < <(find "$suite_dir" -maxdepth 1 \( -name 'root-*' -o -name 'site-*' -o -name 'programs-*' \) \
        -mtime "+$KEEP_UNUSED_DAYS")
}

lock_suite() {
    exec {lock}>"$suite_dir/lock"
    flock --nonblock "$lock" || { say "waiting for another fetch of $suite"; flock "$lock"; }
}

fetch() {
    require_host
    locate_trees
    if [[ ! -e "$root/complete" || ! -e "$site/complete" ]]; then
        lock_suite
        [[ -e "$root/complete" ]] || fetch_root
        [[ -e "$site/complete" ]] || fetch_site
        remove_unused_trees
        exec {lock}>&-
        say "ready: $suite"
    fi
    touch "$root" "$site"
    locate_programs
}

fetch_programs() {
    require_host
    locate_suite
    root="$suite_dir/programs-$(printf '%s\n' "$TREE_FORMAT" "${PROGRAMS[@]}" "${NOT_FETCHED[@]}" | key_of)"
    site="$root"
    if [[ ! -e "$root/complete" ]]; then
        lock_suite
        if [[ ! -e "$root/complete" ]]; then
            say "fetching a browser, nginx, PostgreSQL and DCMTK for the tests (about 150 MB) into $root"
            fetch_packages "${PROGRAMS[@]}"
            touch "$root/complete"
        fi
        remove_unused_trees
        exec {lock}>&-
    fi
    touch "$root"
}

# --- commands -------------------------------------------------------------------------------------

# Splits the words of `run` into `options` of Orthanc and the one path `configuration`.
read_run_words() {
    local word files=()
    options=()
    for word in "$@"; do
        if [[ "$word" == -* ]]; then options+=("$word"); else files+=("$(realpath -e -- "$word")"); fi
    done
    ((${#files[@]} > 0)) || die "run needs a configuration file"
    configuration="${files[0]}"
    if ((${#files[@]} > 1)); then gather "${files[@]}"; fi
}

# Makes a folder of links, named after this process, which becomes Orthanc; folders of ended processes are removed.
gather() {
    local number=0 file old
    for old in "$suite_dir"/configuration-*; do
        [[ "${old##*-}" != "$$" && -e "/proc/${old##*-}" ]] || rm -rf "$old"
    done
    configuration="$suite_dir/configuration-$$"
    mkdir "$configuration"
    for file in "$@"; do
        [[ -f "$file" ]] || die "with several configurations each must be a file: $file"
        ln -sfn "$file" "$configuration/$((number += 1)).json"
    done
}

run() {
    fetch
    read_run_words "$@"
    # Orthanc inherits these locks: while it runs, the trees are not removed.
    exec {root_in_use}<"$root/complete" {site_in_use}<"$site/complete"
    flock --shared "$root_in_use"
    flock --shared "$site_in_use"
    enter_tree
    exec "${loader[@]}" "$root/usr/sbin/Orthanc" "${options[@]}" "$configuration"
}

run_python() {
    fetch
    enter_tree
    exec "${loader[@]}" "$python" "$@"
}

# For a host that has Python without pip.
run_pip() {
    (($# > 0)) || die "pip needs the Python to run it with"
    fetch
    exec "$1" "$pip" "${@:2}"
}

print_paths() {
    fetch
    printf '%s=%q\n' ORTHANC_ROOT "$root" ORTHANC_SITE "$site" ORTHANC_PLUGINS "$plugins" \
        ORTHANC_PYTHON "$python" ORTHANC_PIP "$pip" ORTHANC_LOADER "${loader[*]}"
}

print_programs() {
    suite="$PROGRAMS_SUITE"
    fetch_programs
    printf '%s=%q\n' ORTHANC_UPS_PROGRAMS "$root"
}

forget() {
    locate_cache
    rm -rf "$cache"
}

main() {
    local command="${1:-}"
    (($# > 0)) && shift
    suite=forky
    case "${1:-}" in
        --suite) (($# > 1)) || die "--suite needs a name"; suite="$2"; shift 2 ;;
        --suite=*) suite="${1#--suite=}"; shift ;;
    esac
    [[ "$suite" =~ ^[a-z]+$ ]] || die "a suite is a Debian code name such as forky or trixie, not '$suite'"
    case "$command" in
        run) run "$@" ;;
        fetch) fetch ;;
        paths) print_paths ;;
        python) run_python "$@" ;;
        pip) run_pip "$@" ;;
        programs) print_programs ;;
        forget) forget ;;
        *) usage ;;
    esac
}

main "$@"
