# SPDX-License-Identifier: AGPL-3.0-or-later
"""Subscribes the AE titles of ``Ups.Webhooks`` as configured, each time the plugin starts."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final, Protocol, TypeAlias

from ..codecs.attribute_names import keyword_of
from ..core import tags
from ..core.ae_titles import AeTitles
from ..core.commands import Requester, Subscribe, Unsubscribe
from ..core.dataset import DataSet
from ..core.matching import Query
from ..core.mechanisms import Mechanisms
from ..core.statuses import UpsError
from ..core.subscriptions import Log, standing
from ..core.workitem import Subscription
from ..dicomweb.parameters import filter_of as filter_arguments_of
from ..dicomweb.response import HttpProblem
from ..settings import Webhook
from ..worklist.ports import WorklistPort

_log = logging.getLogger("orthanc_ups.webhook")
_VIA: Final = "settings"
Filter: TypeAlias = tuple[DataSet, Mechanisms]
"""Matching keys, and the extended mechanisms that apply to them."""


class Logs(Protocol):
    """The subscription logs."""

    def log(self, receiving_ae: str) -> Log:
        """The global acts of an AE."""
        ...


def filter_of(webhook: Webhook, index: int) -> Filter | None:
    """The filter of a webhook, None if it has none. Raises ValueError, which names the key at fault.

    Keys that a request may have but that are ignored there are errors here: the filter would match more than intended.
    """
    if not webhook.filter:
        return None
    try:
        arguments = filter_arguments_of(webhook.filter.items())
        query = Query.of(arguments.identifier, mechanisms=arguments.mechanisms)
    except (UpsError, HttpProblem) as error:
        raise ValueError(f'"Ups.Webhooks[{index}].Filter": {error}') from error
    unused = [*arguments.ignored, *map(_name, query.unsupported)]
    if unused or not query.has_matching_keys:
        names = ", ".join(unused) or "nothing in it"
        raise ValueError(f'"Ups.Webhooks[{index}].Filter": {names} is not a matching key of a workitem')
    return arguments.identifier, arguments.mechanisms


def _name(path: str) -> str:
    return ".".join(keyword_of(tag) or tag for tag in path.split("."))


async def subscribe(
    worklist: WorklistPort, logs: Logs, webhooks: Iterable[Webhook], titles: AeTitles
) -> None:
    """Change those subscriptions that differ from the settings."""
    configured: dict[str, list[Filter | None]] = {}
    for index, webhook in enumerate(webhooks):
        configured.setdefault(titles.use(webhook.aet), []).append(filter_of(webhook, index))
    for ae, filters in configured.items():
        if not _matches(logs.log(ae), filters):
            await _renew(worklist, ae, filters)


def _matches(log: Log, filters: list[Filter | None]) -> bool:
    now = standing(log)
    present: list[Filter | None] = [
        (act.filter or {}, act.mechanisms) for act in log.acts if act.sequence in now.filters
    ]
    if now.everything is not Subscription.NONE:
        present.append(None)
    return all(keys in present for keys in filters) and all(keys in filters for keys in present)


async def _renew(worklist: WorklistPort, ae: str, filters: list[Filter | None]) -> None:
    requester = Requester(ae, _VIA)
    try:
        await worklist.execute(Unsubscribe(requester, tags.GLOBAL_SUBSCRIPTION, ae))
        for configured in filters:
            if configured is None:
                command = Subscribe(requester, tags.GLOBAL_SUBSCRIPTION, ae)
            else:
                keys, mechanisms = configured
                command = Subscribe(
                    requester, tags.FILTERED_SUBSCRIPTION, ae, filter=keys, mechanisms=mechanisms
                )
            await worklist.execute(command)
    except UpsError as error:
        _log.error("Cannot subscribe the webhook of %s: %s", ae, error.detail)
