# SPDX-License-Identifier: AGPL-3.0-or-later
"""Subscribes the AE titles of ``Ups.Webhooks`` as the settings say, each time the plugin starts."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final, Protocol

from ..core import tags
from ..core.ae_titles import AeTitles
from ..core.commands import Requester, Subscribe, Unsubscribe
from ..core.dataset import DataSet
from ..core.statuses import UpsError
from ..core.subscriptions import Log, standing
from ..core.workitem import Subscription
from ..dicomweb.response import HttpProblem
from ..dicomweb.ups_rs_parameters import identifier
from ..settings import Webhook
from ..worklist.ports import WorklistPort

_log = logging.getLogger("orthanc_ups.webhook")
_VIA: Final = "settings"


class Logs(Protocol):
    """Who is subscribed to what."""

    def log(self, receiving_ae: str) -> Log:
        """The global acts of an AE."""
        ...


def filter_of(webhook: Webhook, place: int) -> DataSet | None:
    """The filter of a webhook as an identifier, None if it has none. Raises ValueError that names the key."""
    if not webhook.filter:
        return None
    try:
        return identifier(webhook.filter.items())
    except (UpsError, HttpProblem) as error:
        raise ValueError(f'"Ups.Webhooks[{place}].Filter": {error}') from error


async def subscribe(
    worklist: WorklistPort, logs: Logs, webhooks: Iterable[Webhook], titles: AeTitles
) -> None:
    """Make the subscriptions what the settings say; what is right already is left as it is."""
    wanted: dict[str, list[DataSet | None]] = {}
    for place, webhook in enumerate(webhooks):
        wanted.setdefault(titles.use(webhook.aet), []).append(filter_of(webhook, place))
    for ae, filters in wanted.items():
        if not _is_right(logs.log(ae), filters):
            await _subscribe_anew(worklist, ae, filters)


def _is_right(log: Log, filters: list[DataSet | None]) -> bool:
    now = standing(log)
    present: list[DataSet | None] = [act.filter for act in log.acts if act.sequence in now.filters]
    if now.everything is not Subscription.NONE:
        present.append(None)
    return all(one in present for one in filters) and all(one in filters for one in present)


async def _subscribe_anew(worklist: WorklistPort, ae: str, filters: list[DataSet | None]) -> None:
    requester = Requester(ae, _VIA)
    try:
        await worklist.execute(Unsubscribe(requester, tags.GLOBAL_SUBSCRIPTION, ae))
        for one in filters:
            uid = tags.GLOBAL_SUBSCRIPTION if one is None else tags.FILTERED_SUBSCRIPTION
            await worklist.execute(Subscribe(requester, uid, ae, filter=one))
    except UpsError as error:
        _log.error("The webhook of %s cannot be subscribed: %s", ae, error.detail)
