# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whether this Orthanc may decide about HTTP requests by more than their credentials.

Orthanc itself has users, but no rights per path. Filters come from Lua (``IncomingHttpRequestFilter``), from the script
of the Python plugin, and from other plugins; Orthanc does not report whether there is one. Therefore anything that may
have a filter counts as one.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

from ..settings import OrthancSettings
from .loopback import Loopback, refused

OWN_SCRIPT: Final = Path(__file__).parents[2] / "ups_plugin.py"
"""``PythonScript`` of a site without a script of its own."""
WITHOUT_FILTER: Final = frozenset(
    {
        "connectivity-checks",
        "delayed-deletion",
        "dicom-web",
        "explorer.js",  # Orthanc's name for the scripts that extend its own page
        "gdcm",
        "housekeeper",
        "multitenant-dicom",
        "mysql-index",
        "mysql-storage",
        "odbc-index",
        "odbc-storage",
        "ohif",
        "orthanc-explorer-2",
        "postgresql-index",
        "postgresql-storage",
        "python",
        "serve-folders",
        "stone-webviewer",
        "web-viewer",
        "worklists",
        "wsi",
    }
)
"""Plugins whose source code registers neither a request filter nor a check of credentials (as of November 2026)."""


def judges_by_path(settings: OrthancSettings, plugins: Collection[str]) -> bool:
    """False if Orthanc certainly treats every path alike for the same credentials.

    ``plugins``: the names of the plugins that Orthanc has loaded.
    """
    has_lua = bool(settings.lua_scripts) or settings.execute_lua
    return has_lua or not _is_own_script(settings.python_script) or not WITHOUT_FILTER.issuperset(plugins)


def _is_own_script(script: str) -> bool:
    try:
        return bool(script) and OWN_SCRIPT.samefile(script)
    except OSError:
        return False


async def loaded_plugins(loopback: Loopback) -> tuple[str, ...]:
    """Names of the plugins that Orthanc has loaded. Raises StoreUnavailable."""
    reply = await loopback.request("GET", "/plugins")
    names = reply.json() if reply.status == 200 else None
    if not isinstance(names, list):
        raise refused(reply, "cannot list the plugins")
    return tuple(map(str, names))
