# SPDX-License-Identifier: AGPL-3.0-or-later
"""The codec of the DIMSE wire with its settings: bytes of a presentation context on one side, the inner form
on the other. Large data sets are decoded in a thread, so that the loop stays free.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from ..codecs.charset import undeclared
from ..codecs.corrections import Corrections
from ..core.dataset import DataSet
from ..core.statuses import UpsError
from ..settings import Settings, Surroundings
from .decode import Bounds, decode, too_large
from .encode import encode
from .syntax import Syntax

_LARGE: Final = 64 * 1024  # bytes; below, decoding takes a few milliseconds at most
_FIRST_OF_CONTENT: Final = "00080000"  # below are command sets, file meta information and directories


class Codec:
    """Decodes and encodes with the limits of the settings."""

    def __init__(self, settings: Settings, surroundings: Surroundings) -> None:
        self._bounds = Bounds(settings.maximum_nesting)
        self._most = settings.maximum_data_set_size
        self._strict = settings.strict
        self._otherwise = undeclared(surroundings.default_encoding)
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="UPS-DECODE")

    def corrections(self) -> Corrections:
        """For a request whose answer can tell what was corrected."""
        return Corrections(lenient=not self._strict)

    async def decoded(
        self, encoded: bytes, syntax: Syntax, corrections: Corrections | None = None
    ) -> DataSet:
        """The data set in its inner form. Raises UpsError (0106, 0110, 0213) if it is not one.

        ``corrections`` notes what was read otherwise than it stands; without, nothing is, but repeated elements of
        the command set are passed over.
        """
        if len(encoded) <= _LARGE and not syntax.deflated:
            return self._decode(encoded, syntax, corrections)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._decode, encoded, syntax, corrections)

    def _decode(self, encoded: bytes, syntax: Syntax, corrections: Corrections | None) -> DataSet:
        found = decode(encoded, syntax, self._bounds, self._most, self._otherwise, corrections)
        if corrections or self._strict or not found or next(iter(found)) >= _FIRST_OF_CONTENT:
            return found
        return {tag: one for tag, one in found.items() if tag >= _FIRST_OF_CONTENT}

    def too_large(self) -> UpsError:
        """The refusal of a data set that was thrown away while it came."""
        return too_large(self._most)

    def encoded(self, dataset: DataSet, syntax: Syntax) -> bytes:
        """The data set as bytes."""
        return encode(dataset, syntax)

    def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)
