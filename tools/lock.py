# SPDX-License-Identifier: AGPL-3.0-or-later
"""Write requirements.lock: requirements.txt with the hash of each wheel for CPython 3.11 to 3.14 on Linux.

    python -m tools.lock          after a change of requirements.txt; needs pip (``docker/native.sh pip``) and network

``pip install --require-hashes --requirement requirements.lock`` installs these wheels and nothing else.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

CHECKOUT: Final = Path(__file__).resolve().parents[1]
REQUIREMENTS: Final = CHECKOUT / "requirements.txt"
LOCK: Final = CHECKOUT / "requirements.lock"
PYTHONS: Final = ("3.11", "3.12", "3.13", "3.14")
MACHINES: Final = ("x86_64", "aarch64")
_GLIBC: Final = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")
_HEAD: Final = """\
# SPDX-License-Identifier: AGPL-3.0-or-later
# Written by `python -m tools.lock` from requirements.txt: the wheels for CPython 3.11 to 3.14 on Linux with glibc 2.28.
"""


def requirements(python: str) -> list[str]:
    """The requirements (``name==version``) that apply to a version of Python such as ``3.12``."""
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    pins = []
    for requirement in map(Requirement, lines()):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            requirement.marker = None
            pins.append(str(requirement))
    return pins


def lines() -> list[str]:
    """The lines of requirements.txt that name a package."""
    return list(
        filter(None, (line.partition("#")[0].strip() for line in REQUIREMENTS.read_text().splitlines()))
    )


def pip(*arguments: str | Path) -> None:
    """Run the pip that ``docker/native.sh`` downloads. Raises subprocess.CalledProcessError."""
    native = CHECKOUT / "docker" / "native.sh"
    subprocess.run([native, "pip", sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


def target_options(python: str, machine: str) -> list[str]:
    """Options that make pip select wheels for this version of Python, which need not be installed."""
    platforms = [f"--platform={glibc}_{machine}" for glibc in _GLIBC]
    return [
        *platforms,
        f"--python-version={python}",
        "--implementation=cp",
        "--only-binary=:all:",
        "--no-deps",
    ]


def main() -> int:
    """Download every wheel and write requirements.lock."""
    with tempfile.TemporaryDirectory() as folder:
        for python in PYTHONS:
            for machine in MACHINES:
                options = target_options(python, machine)
                pip("download", "--quiet", "--dest", folder, *options, *requirements(python))
        LOCK.write_text(_HEAD + "".join(_entries(Path(folder))))
    return 0


def _entries(wheels: Path) -> list[str]:
    entries = []
    for line in lines():
        name = Requirement(line).name.replace("-", "_").lower()
        files = sorted(wheel for wheel in wheels.glob("*.whl") if wheel.name.lower().startswith(f"{name}-"))
        hashes = sorted({hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in files})
        entries.append(" \\\n".join([line, *(f"    --hash=sha256:{digest}" for digest in hashes)]) + "\n")
    return entries


if __name__ == "__main__":
    sys.exit(main())
