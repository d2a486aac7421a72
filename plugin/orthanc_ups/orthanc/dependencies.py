# SPDX-License-Identifier: AGPL-3.0-or-later
"""Adds the Python packages of a release archive to the path, and logs missing ones in one line at the start."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from .sdk import Orthanc, missing_calls

PACKAGES: Final = ("aiohttp", "defusedxml", "msgspec", "orjson", "pydicom", "pynetdicom")
OLDEST_ORTHANC: Final = "1.12.4"
OLDEST_PYTHON_PLUGIN: Final = "5.0"
_OLDEST: Final = (3, 11)
_RELEASE: Final = Path(__file__).resolve().parents[3]
_VERSION: Final = f"{sys.version_info[0]}.{sys.version_info[1]}"


def ensure(
    error: Callable[[str], object], packages: tuple[str, ...] = PACKAGES, release: Path = _RELEASE
) -> None:
    """Import every package: from the archive's folder ``site`` if it exists, else from Orthanc's Python.

    Args:
        error: logs a line.
        packages: names of modules.
        release: the folder that contains the plugin's folder.

    Raises:
        SystemExit: something is missing, which ``error`` has logged. It ends Orthanc's start.
    """
    if sys.version_info < _OLDEST:
        error(f"UPS: Orthanc's Python is {_VERSION}, expected 3.11 or later")
        raise SystemExit(1)
    site = release / "site" / f"python{_VERSION}"
    if site.is_dir() and str(site) not in sys.path:
        sys.path.insert(0, str(site))
    problems = [problem for name in packages if (problem := _problem(name))]
    if problems:
        error(
            f"UPS: Python packages are missing for Orthanc's Python {_VERSION}: {', '.join(problems)}. "
            f"{_advice(packages, release)}"
        )
        raise SystemExit(1)


def ensure_calls(orthanc: Orthanc) -> None:
    """Check that the Python plugin is recent enough. Raises SystemExit, which ends Orthanc's start."""
    missing = missing_calls(orthanc)
    if missing:
        version = getattr(orthanc, "__version__", "")
        orthanc.LogError(
            f"UPS: this Python plugin {version and version + ' '}of Orthanc is too old: it lacks {', '.join(missing)}. "
            f"Expected Orthanc {OLDEST_ORTHANC} with Python plugin {OLDEST_PYTHON_PLUGIN} or later"
        )
        raise SystemExit(1)


def _advice(packages: tuple[str, ...], release: Path) -> str:
    requirements = release / "requirements.txt"
    source = f"--requirement {requirements}" if requirements.exists() else " ".join(packages)
    pip = f"python{_VERSION} -m pip install {source}"
    pythons = sorted(folder.name for folder in release.glob("site/python3*"))
    archive = f" (the archive has them for {', '.join(pythons)} only)" if pythons else ""
    return f"Install them, for example with: {pip}{archive}. If they are in a separate folder, add it to PYTHONPATH"


def _problem(name: str) -> str:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        return name if error.name == name else f"{name} (which needs {error.name})"
    except ImportError as error:  # built for another Python
        return f"{name} ({' '.join(str(error).split())})"
    return ""
