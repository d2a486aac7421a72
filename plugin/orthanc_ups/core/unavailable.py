# SPDX-License-Identifier: AGPL-3.0-or-later
"""The error of requests that Orthanc's store did not carry out or did not answer."""

from __future__ import annotations


class StoreUnavailable(Exception):
    """The store refused a request or did not answer.

    ``certain`` is True if the entry has certainly not changed; False if that is unknown, because the answer was lost:
    then the caller must read the entry to find out.
    """

    def __init__(self, reason: str, *, certain: bool) -> None:
        super().__init__(reason)
        self.certain = certain
