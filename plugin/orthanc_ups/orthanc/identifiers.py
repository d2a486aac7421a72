# SPDX-License-Identifier: AGPL-3.0-or-later
"""Orthanc's identifiers of its resources."""

from __future__ import annotations

import hashlib


def identifier_of(*identity: str) -> str:
    """Orthanc's identifier of a patient, study, series or instance: a SHA-1 digest in five groups.

    ``identity``: Patient ID, followed by the Study, Series and SOP Instance UID as far as the level needs them.
    """
    digest = hashlib.sha1("|".join(identity).encode(), usedforsecurity=False).hexdigest()
    return "-".join(digest[start : start + 8] for start in range(0, 40, 8))
