# SPDX-License-Identifier: AGPL-3.0-or-later
"""The folder of Orthanc's worklists plugin (``Worklists.Database``), which gets no queries while this plugin does."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_log = logging.getLogger("orthanc_ups.modality")
_SUFFIX: Final = ".wl"


class WorklistFolder:
    """Files of worklist entries. They are read for each query, because they may change at any time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._unreadable: set[Path] = set()

    def files(self) -> Iterator[bytes]:
        """The content of each file, by name. A file that cannot be read is logged once."""
        try:
            paths = sorted(path for path in self._folder.iterdir() if path.suffix.lower() == _SUFFIX)
        except OSError as error:
            self._log_once(self._folder, error)
            return
        self._unreadable.discard(self._folder)
        for path in paths:
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                continue
            except OSError as error:
                self._log_once(path, error)
            else:
                yield content

    def _log_once(self, path: Path, error: OSError) -> None:
        if path not in self._unreadable:
            self._unreadable.add(path)
            _log.error('Cannot read "%s" (Worklists.Database): %s', path, error.strerror)
