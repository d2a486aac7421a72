# SPDX-License-Identifier: AGPL-3.0-or-later
"""Run lint, type checks and unit tests on each CPython from 3.11 to 3.14 that this host has.

python -m tools.pythons            python3.11 … python3.14, from the PATH or from uv
python -m tools.pythons --this     only the Python that runs this command
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tools.lock import CHECKOUT, PYTHONS

CHECKS: Final = (
    ("ruff", "check"),
    ("mypy",),
    ("pytest", "-q", "-p", "no:cacheprovider", "-m", "not real and not torture"),
)


def main() -> int:
    """Return 0 if every check passed on every installed Python; the results are printed at the end."""
    parser = argparse.ArgumentParser(prog="tools.pythons", description=__doc__)
    parser.add_argument("--this", action="store_true", help="only the Python that runs this command")
    if parser.parse_args().this:
        return int(not _passes(Path(sys.executable)))
    results = {python: _check(python) for python in PYTHONS}
    print("\n".join(f"CPython {python}: {result}" for python, result in results.items()))
    return int("failed" in results.values())


def _check(python: str) -> str:
    program = interpreter(python)
    if program is None:
        return "skipped: neither in the PATH nor known to uv"
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([program, "-m", "venv", "--without-pip", folder], check=True)
        inside = Path(folder, "bin", "python")
        pip = (CHECKOUT / "docker" / "native.sh", "pip", inside)
        packages = ("--only-binary=:all:", "--requirement", CHECKOUT / "requirements-dev.txt")
        subprocess.run([*pip, "install", "--quiet", *packages], check=True)
        return "passed" if _passes(inside) else "failed"


def interpreter(python: str) -> Path | None:
    """The path of an interpreter of that version that starts; None if there is none."""
    names = [shutil.which(f"python{python}")]
    if uv := shutil.which("uv"):
        shown = subprocess.run([uv, "python", "find", python], capture_output=True, text=True)
        names.append(shown.stdout.strip() if shown.returncode == 0 else None)
    for name in filter(None, names):
        if subprocess.run([name, "-c", ""], capture_output=True).returncode == 0:
            return Path(name)
    return None


def _passes(python: Path) -> bool:
    print(f"--- {subprocess.check_output([python, '--version'], text=True).strip()}", flush=True)
    return all(subprocess.run([python, "-m", *check], cwd=CHECKOUT).returncode == 0 for check in CHECKS)


if __name__ == "__main__":
    sys.exit(main())
