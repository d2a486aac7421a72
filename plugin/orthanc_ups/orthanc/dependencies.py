# SPDX-License-Identifier: AGPL-3.0-or-later
"""Says in one line which Python packages are missing, before anything imports them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

PACKAGES: Final = ("aiohttp", "defusedxml", "msgspec", "orjson", "pydicom", "pynetdicom")
_OLDEST: Final = (3, 11)
_REQUIREMENTS: Final = Path(__file__).resolve().parents[3] / "requirements.txt"


def ensure(error: Callable[[str], object], packages: tuple[str, ...] = PACKAGES) -> None:
    """Import every package. Raises SystemExit, which ends Orthanc's start, with a line to ``error``."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if sys.version_info < _OLDEST:
        error(f"UPS: Orthanc's Python is {version}, expected 3.11 or later")
        raise SystemExit(1)
    problems = [problem for name in packages if (problem := _problem(name))]
    if problems:
        source = f"--requirement {_REQUIREMENTS}" if _REQUIREMENTS.exists() else " ".join(packages)
        error(
            f"UPS: Python packages are missing for Orthanc's Python {version}: {', '.join(problems)}. "
            f"Install them, for example by: python{version} -m pip install {source}; "
            "a folder of their own must be named in PYTHONPATH"
        )
        raise SystemExit(1)


def _problem(name: str) -> str:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        return name if error.name == name else f"{name} (which needs {error.name})"
    except ImportError as error:  # made for another Python
        return f"{name} ({' '.join(str(error).split())})"
    return ""
