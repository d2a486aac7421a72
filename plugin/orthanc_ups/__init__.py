# SPDX-License-Identifier: AGPL-3.0-or-later
"""A DICOM Unified Procedure Step (UPS) worklist manager inside Orthanc.

A script of Orthanc's Python plugin calls ``install`` once, while it loads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .orthanc.sdk import ChangeCallback, Orthanc, ReceivedCallback, StoreFilter, WorklistCallback

__version__ = "1.0.0"


def install(
    orthanc: Orthanc,
    *,
    on_change: ChangeCallback | None = None,
    received_instance: ReceivedCallback | None = None,
    c_store_filter: StoreFilter | None = None,
    worklist: WorklistCallback | None = None,
) -> None:
    """Register the plugin with Orthanc, together with those callbacks of the script of which Orthanc takes only one.

    The script must not register these kinds itself (the last one only with ``Ups.ModalityWorklist``), but may register
    any other. Without ``Ups.Enable`` only its own callbacks are registered. Orthanc logs what they raise; the plugin
    is not affected.

    Args:
        orthanc: the module ``orthanc``.
        on_change: called with each change (change type, level, resource), after the plugin.
        received_instance: called with each instance that the plugin does not refuse (DICOM file, origin); returns an
            action and the modified file or None. The plugin checks a modified file again.
        c_store_filter: called with each instance of a C-STORE that the plugin does not refuse; returns its status.
        worklist: called with each worklist query (answers, query, calling and called AE title), after the plugin.

    Raises:
        SystemExit: orthanc.json is wrong, Python packages are missing, or Orthanc is too old; one line in the log says
            so. That ends Orthanc's start.
    """
    from .orthanc import dependencies, fresh_process

    fresh_process.ensure(orthanc.LogWarning)
    dependencies.ensure(orthanc.LogError)
    dependencies.ensure_calls(orthanc)

    from .app import Plugin  # only once it is certain that this process is fresh
    from .orthanc.hooks import SiteCallbacks

    Plugin(orthanc, SiteCallbacks(on_change, received_instance, c_store_filter, worklist)).register()
