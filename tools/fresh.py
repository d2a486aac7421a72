# SPDX-License-Identifier: AGPL-3.0-or-later
"""Install an empty Debian and run README's commands in it, as a new user would; to be run before each release.

    python -m tools.fresh --suite bookworm --suite trixie            README's commands, unprivileged
    python -m tools.fresh --suite trixie --root -- make test         any other command, as root
    python -m tools.fresh --suite forky --like-ubuntu                as on Ubuntu, whose apt has no mirror of Debian

The machine is a folder with Debian's smallest system plus make, python3, ca-certificates and curl. It shares this
host's kernel and network, so ports 8042, 8043, 4242 and 4243 must be free. Needs root and the package mmdebstrap.

With --like-ubuntu the machine is still a Debian, but it identifies itself as Ubuntu and its apt has only a mirror of
Ubuntu, so DEBIAN_MIRROR must be set, as on Ubuntu. Packages, Python and C library are those of the suite.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parents[1]
PACKAGES: Final = "make,python3,ca-certificates,curl"
USER: Final = "newcomer"
UBUNTU: Final = 'PRETTY_NAME="Ubuntu"\nNAME="Ubuntu"\nID=ubuntu\nID_LIKE=debian\n'
UBUNTU_SOURCES: Final = "deb http://ubuntu.invalid/ubuntu noble main universe\n"
HOST_CERTIFICATES: Final = Path("/usr/local/share/ca-certificates")

# The machine shares the host's kernel, network and devices, and nothing else.
ENTER: Final = """
set -e
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mount -t tmpfs tmpfs "$1/tmp"
chmod 1777 "$1/tmp"
exec chroot "$1" setpriv --reuid "$2" --regid "$2" --init-groups --reset-env -- bash -c "cd ~/orthanc-ups; $3"
"""

# README's two commands and its first workitem, while `make run` continues in the background.
README: Final = r"""
set -e
make run >~/run.log 2>&1 & run=$!
trap 'kill $run; wait $run || true' EXIT
for second in $(seq 300); do grep -q 'Orthanc is up' ~/run.log && break; kill -0 $run; sleep 1; done
cat ~/run.log
make demo
sed -n '/^S=http/,/^```/{/^```/d;p}' README.md >~/first.sh
bash -ex ~/first.sh
"""


def main() -> int:
    """Return the highest exit code of the machines: 0 if the command succeeded on all of them."""
    arguments = _parser().parse_args()
    if os.geteuid() != 0 or not shutil.which("mmdebstrap"):
        return _refuse("needs root and the package mmdebstrap to install an empty Debian")
    command = " ".join(arguments.command) or README
    results = [_try(suite, arguments, command) for suite in arguments.suite or ["bookworm", "trixie"]]
    return max(results)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools.fresh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suite", action="append", help="Debian suite (default: bookworm and trixie)")
    parser.add_argument("--root", action="store_true", help="run the command as root")
    parser.add_argument("--like-ubuntu", action="store_true", help="imitate Ubuntu (see above)")
    parser.add_argument("--include", default="", help="further packages, separated by commas")
    parser.add_argument(
        "--accept-expired", action="store_true", help="accept a mirror whose Release file has expired"
    )
    parser.add_argument("--keep", type=Path, help="folder of a machine that is kept, and reused if it exists")
    parser.add_argument(
        "command", nargs="*", help="shell command to run in the checkout (default: README's commands)"
    )
    return parser


def _refuse(reason: str) -> int:
    print(f"tools.fresh: {reason}", file=sys.stderr)
    return 2


def _try(suite: str, arguments: argparse.Namespace, command: str) -> int:
    user = "root" if arguments.root else USER
    kind = f"{suite} like Ubuntu" if arguments.like_ubuntu else suite
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix=f"fresh-{suite}-"))
    try:
        if not (folder / "etc").exists():
            _install(suite, folder, arguments.include)
        if arguments.like_ubuntu:
            _imitate_ubuntu(folder)
            command = f"export DEBIAN_MIRROR={shlex.quote(_mirror())}; {command}"
        _copy_checkout(folder, user)
        if arguments.accept_expired:
            command = f"export ORTHANC_UPS_ACCEPT_EXPIRED=1; {command}"
        started, received = time.monotonic(), _received()
        result = _run(folder, user, command)
        seconds, megabytes = time.monotonic() - started, (_received() - received) / 1e6
        print(
            f"{kind}, {user}: exit code {result} after {seconds:.0f} s, {megabytes:.0f} MB received",
            flush=True,
        )
        return result
    finally:
        if not arguments.keep:
            shutil.rmtree(folder)


def _install(suite: str, folder: Path, include: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    packages = ",".join(filter(None, (PACKAGES, include)))
    expired = ("--aptopt=Acquire::Check-Valid-Until false", "--aptopt=Acquire::Check-Date false")
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}", *expired, suite, folder],
        check=True,
    )
    (folder / "etc/hosts").write_text("127.0.0.1 localhost\n")
    if HOST_CERTIFICATES.exists():
        shutil.copytree(HOST_CERTIFICATES, folder / HOST_CERTIFICATES.relative_to("/"), dirs_exist_ok=True)
    for name in ("etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt"):
        (folder / name).unlink(missing_ok=True)
        shutil.copyfile(f"/{name}", folder / name)
    subprocess.run(["chroot", folder, "useradd", "--create-home", "--shell", "/bin/bash", USER], check=True)


def _imitate_ubuntu(folder: Path) -> None:
    """Make the machine look like an Ubuntu with the package debian-archive-keyring installed."""
    (folder / "etc/os-release").unlink()  # a link
    (folder / "etc/os-release").write_text(UBUNTU)
    for file in (folder / "etc/apt/sources.list.d").iterdir():
        file.unlink()
    (folder / "etc/apt/sources.list").write_text(UBUNTU_SOURCES)


def _mirror() -> str:
    """The mirror of Debian that this host's apt uses, or $DEBIAN_MIRROR."""
    if "DEBIAN_MIRROR" in os.environ:
        return os.environ["DEBIAN_MIRROR"]
    fields = "$(REPO_URI) $(COMPONENT)"
    listed = ["apt-get", "indextargets", "--no-release-info", "--format", fields, "Created-By: Packages"]
    lines = subprocess.run(listed, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return next(
        uri
        for uri, component in map(str.split, lines)
        if re.search(r"/debian/?$", uri) and component == "main"
    )


def _copy_checkout(folder: Path, user: str) -> None:
    """Copy what is committed; other files of this host's checkout are left out."""
    home = folder / ("root" if user == "root" else f"home/{USER}")
    target = home / "orthanc-ups"
    target.mkdir(exist_ok=True)
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=CHECKOUT, check=True, stdout=subprocess.PIPE)
    subprocess.run(["tar", "-x", "-C", target], input=archive.stdout, check=True)
    subprocess.run(["chroot", folder, "chown", "-R", user, f"/{target.relative_to(folder)}"], check=True)


def _received() -> int:
    """Bytes received by this host's network interfaces, without loopback."""
    lines = Path("/proc/net/dev").read_text().splitlines()[2:]
    counters = (line.split(":") for line in lines)
    return sum(int(numbers.split()[0]) for name, numbers in counters if name.strip() != "lo")


def _run(folder: Path, user: str, command: str) -> int:
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    return subprocess.run([*unshare, "bash", "-c", ENTER, "enter", folder, user, command]).returncode


if __name__ == "__main__":
    sys.exit(main())
