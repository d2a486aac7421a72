# SPDX-License-Identifier: AGPL-3.0-or-later
"""The one error of everything that asks Orthanc."""

from __future__ import annotations


class StoreUnavailable(Exception):
    """The store did not take the write or did not answer.

    ``certain`` is True if the entry surely did not change; False if nobody knows (an answer was lost):
    then the caller reads the entry to find out.
    """

    def __init__(self, reason: str, *, certain: bool) -> None:
        super().__init__(reason)
        self.certain = certain
