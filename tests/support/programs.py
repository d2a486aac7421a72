# SPDX-License-Identifier: AGPL-3.0-or-later
"""Programs that tests run beside Orthanc: those of this host, else those of ``docker/native.sh programs``.

``python -m tests.support.programs`` fetches what is missing, so that no test waits for a download.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from tests.support.orthanc import NATIVE

_SYSTEM_PATH: Final = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


@dataclass(frozen=True, slots=True)
class Program:
    """A program of this host or of the fetched tree.

    Attributes:
        path: its file.
        environment: variables that it needs beside those of this process.
    """

    path: Path
    environment: Mapping[str, str] = field(default_factory=dict)


def _which(*names: str) -> Path | None:
    paths = (shutil.which(name, path=_SYSTEM_PATH) for name in names)
    return next((Path(path) for path in paths if path), None)


def _chromium() -> Path | None:
    return _which(os.environ.get("CHROMIUM") or "chromium", "chromium-headless-shell")


def _postgres() -> Path | None:
    """PostgreSQL's server: Debian does not install it in the PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)
    return next(iter(debian), None) or _which("postgres")


def _atomic_library() -> Path | None:
    """Node.js, on which Playwright's driver runs, needs a library that a minimal system lacks."""
    try:
        ctypes.CDLL("libatomic.so.1")
    except OSError:
        return None
    return Path("libatomic.so.1")


# Name: how to find it on the host, and where it is in the fetched tree.
_PROGRAMS: Final[dict[str, tuple[Callable[[], Path | None], str]]] = {
    "chromium": (_chromium, "usr/lib/chromium/chromium-headless-shell"),
    "nginx": (lambda: _which("nginx"), "usr/sbin/nginx"),
    "postgres": (_postgres, "usr/lib/postgresql/15/bin/postgres"),
    "findscu": (lambda: _which("findscu"), "usr/bin/findscu"),
    "storescu": (lambda: _which("storescu"), "usr/bin/storescu"),
    "echoscu": (lambda: _which("echoscu"), "usr/bin/echoscu"),
    "dump2dcm": (lambda: _which("dump2dcm"), "usr/bin/dump2dcm"),
    "dcmdump": (lambda: _which("dcmdump"), "usr/bin/dcmdump"),
    "libatomic": (_atomic_library, "usr/lib/x86_64-linux-gnu/libatomic.so.1"),
}


_NOT_LOADED: Final = 127
"""Exit code of the loader if it does not have every library."""

# Libraries of the browser look for one of PulseAudio by its absolute path.
_LIBRARIES: Final = (
    "usr/lib/x86_64-linux-gnu",
    "lib/x86_64-linux-gnu",
    "usr/lib/x86_64-linux-gnu/pulseaudio",
)


def missing() -> list[str]:
    """Names of the programs that this host lacks."""
    return [name for name, (of_host, _) in _PROGRAMS.items() if of_host() is None]


@functools.cache
def program(name: str) -> Program:
    """The host's program of that name, else the fetched one.

    Raises:
        subprocess.CalledProcessError: it cannot be fetched; standard error says why.
    """
    of_host, in_tree = _PROGRAMS[name]
    path = of_host()
    return Program(path) if path else Program(_tree() / in_tree, _environment(_tree()))


@functools.cache
def _tree() -> Path:
    shown = subprocess.run([NATIVE, "programs"], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    (words,) = shlex.split(shown.stdout.decode())
    return Path(words.removeprefix("ORTHANC_UPS_PROGRAMS="))


def _environment(tree: Path) -> dict[str, str]:
    return {
        "LD_LIBRARY_PATH": os.pathsep.join(str(tree / folder) for folder in _LIBRARIES),
        "FONTCONFIG_FILE": str(_font_configuration(tree)),
        "DCMDICTPATH": str(next(tree.glob("usr/share/libdcmtk*/dicom.dic"))),
    }


def _font_configuration(tree: Path) -> Path:
    """A font configuration with the host's fonts and rules, and the fonts of the tree."""
    file = tree / "fonts.conf"
    if not file.exists():
        folders = "".join(f"<dir>{folder}</dir>" for folder in ("/usr/share/fonts", tree / "usr/share/fonts"))
        rules = "<include ignore_missing='yes'>/etc/fonts/fonts.conf</include>"
        cache = "<cachedir prefix='xdg'>fontconfig</cachedir>"
        file.write_text(f"<?xml version='1.0'?><fontconfig>{rules}{folders}{cache}</fontconfig>\n")
    return file


def japanese_fonts() -> dict[str, str]:
    """Environment variables with which Japanese text is displayed, and not as boxes."""
    fc_list = _which("fc-list")
    listed = (
        subprocess.run([fc_list, ":lang=ja"], capture_output=True, check=False).stdout if fc_list else b""
    )
    return {} if listed.strip() else {"FONTCONFIG_FILE": str(_font_configuration(_tree()))}


@contextmanager
def environment_of(name: str) -> Iterator[None]:
    """Give this process the environment of a program for a while, for children that inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in program(name).environment.items():
            patch.setenv(variable, value)
        yield


def complaint(name: str) -> str:
    """Why a fetched program does not start, such as a missing library; "" if it does."""
    fetched = program(name)
    environment = {**os.environ, **fetched.environment}
    try:
        ended = subprocess.run([fetched.path, "--version"], env=environment, capture_output=True, text=True)
    except OSError as error:
        return str(error)
    return ended.stderr.strip() if ended.returncode == _NOT_LOADED else ""


def main() -> int:
    """Fetch missing programs; return 1 if one does not start on this host, before any test runs."""
    absent = missing()
    if absent:
        print(f"Not on this host, so taken from {_tree()}: {', '.join(absent)}", flush=True)
    complaints = [words for name in absent if name != "libatomic" and (words := complaint(name))]
    for words in complaints:
        print(f"It does not start here; install it, or what it lacks: {words}", file=sys.stderr)
    return int(bool(complaints))


if __name__ == "__main__":
    sys.exit(main())
