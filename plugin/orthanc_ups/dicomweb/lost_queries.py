# SPDX-License-Identifier: AGPL-3.0-or-later
"""Warnings for clients whose parameters may have been lost with the query, as on Orthanc's own port.

Orthanc drops the query of a POST, PUT or DELETE before a plugin sees the request. Whether there was one cannot be
known, so each request that could have had arguments and arrives without them is answered with a Warning.
"""

from __future__ import annotations

from typing import Final

_CURE: Final = "this port drops the query of a POST, PUT or DELETE"
_HEADER: Final = "header X-Ups-Query"


def without_workitem_uid(uid: str) -> str:
    """Create without UID: the server has chosen one."""
    return (
        f"No SOP Instance UID has arrived, so {uid} was chosen: {_CURE}. "
        f"Send it in the body as (0008,0018) or in the {_HEADER}."
    )


def without_deletion_lock() -> str:
    """Subscribe without Deletion Lock."""
    return (
        f"No Deletion Lock has been asked for: {_CURE}, so deletionlock and filter do not arrive. "
        f"Send Deletion Lock in the body as (0074,1230) or in the {_HEADER}."
    )


def without_matching_keys() -> str:
    """Filtered Subscribe without keys, which is refused."""
    return f"No filter has arrived: {_CURE}. Send the matching keys in the body or in the {_HEADER}."


def without_transaction_uid() -> str:
    """A request that was refused because it has no Transaction UID."""
    return f"No Transaction UID has arrived: {_CURE}. Send it in the body as (0008,1195) or in the {_HEADER}."


def without_requester(ae: str) -> str:
    """Request Cancellation without a requester."""
    return (
        f"No requester has arrived, so the performer sees {ae} as the requester: {_CURE}. "
        f"Send it at the end of the path (cancelrequest/AETITLE) or in the {_HEADER}."
    )
