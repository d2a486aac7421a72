# SPDX-License-Identifier: AGPL-3.0-or-later
"""The codec of the DIMSE wire with its settings: bytes of a presentation context on one side, the inner form
on the other. Large data sets are decoded in a thread, so that the loop stays free.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from ..core.dataset import DataSet
from ..core.statuses import UpsError
from ..settings import Settings, Surroundings
from .charset import undeclared
from .decode import Bounds, decode, too_large
from .encode import encode
from .syntax import Syntax

_LARGE: Final = 64 * 1024  # bytes; below, decoding takes a few milliseconds at most


class Codec:
    """Decodes and encodes with the limits of the settings."""

    def __init__(self, settings: Settings, surroundings: Surroundings) -> None:
        self._bounds = Bounds(settings.maximum_nesting)
        self._most = settings.maximum_data_set_size
        self._otherwise = undeclared(surroundings.default_encoding)
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="UPS-DECODE")

    async def decoded(self, encoded: bytes, syntax: Syntax) -> DataSet:
        """The data set in its inner form. Raises UpsError (0106, 0110, 0213) if it is not one."""
        if len(encoded) <= _LARGE and not syntax.deflated:
            return self._decode(encoded, syntax)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._decode, encoded, syntax)

    def _decode(self, encoded: bytes, syntax: Syntax) -> DataSet:
        return decode(encoded, syntax, self._bounds, self._most, self._otherwise)

    def too_large(self) -> UpsError:
        """The refusal of a data set that was thrown away while it came."""
        return too_large(self._most)

    def encoded(self, dataset: DataSet, syntax: Syntax) -> bytes:
        """The data set as bytes."""
        return encode(dataset, syntax)

    def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)
