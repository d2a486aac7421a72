# SPDX-License-Identifier: AGPL-3.0-or-later
"""Takes Python packages from a release archive, and says in one line which are missing, before they are imported."""

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
    """Import every package: of the archive's folder ``site``, if it is there, else of Orthanc's Python.

    ``release`` is where the plugin's folder stands. Raises SystemExit, which ends Orthanc's start, with a line to
    ``error``.
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
    """Raise SystemExit, which ends Orthanc's start, with a line in the log, if its Python plugin is too old."""
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
    brought = sorted(folder.name for folder in release.glob("site/python3*"))
    archive = f" (the archive brings them for {', '.join(brought)} only)" if brought else ""
    return f"Install them, for example by: {pip}{archive}; a folder of their own must be named in PYTHONPATH"


def _problem(name: str) -> str:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        return name if error.name == name else f"{name} (which needs {error.name})"
    except ImportError as error:  # made for another Python
        return f"{name} ({' '.join(str(error).split())})"
    return ""
