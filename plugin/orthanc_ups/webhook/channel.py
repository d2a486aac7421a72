# SPDX-License-Identifier: AGPL-3.0-or-later
"""Event reports as HTTP requests to configured URLs (``Ups.Webhooks``).

Each event is one POST request with the event as DICOM JSON, sent after the previous one was answered. The headers
follow the Standard Webhooks specification, for which there are libraries in many languages:

- ``webhook-id``: the same for every attempt to send an event, so that receivers can ignore repeats;
- ``webhook-timestamp``: the time of this attempt in seconds since the epoch;
- ``webhook-signature``: ``v1,`` and the base64 of HMAC-SHA256 over ``<id>.<timestamp>.<body>``, if there is a
  secret (``whsec_…`` is base64, any other secret is UTF-8 text).

The plugin adds ``ups-sequence`` (grows per receiver; gaps are normal), ``ups-event-type``, ``ups-receiving-ae`` and
``ups-attempt`` (1, 2, …, counted since the start). A status 2xx is success. Every other status is retried, including
410: only the operator can end the subscription. Redirects are not followed, because they would send patient data to a
URL that nobody configured.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from .. import __version__
from ..config import ENCODED_SECRET
from ..core.ae_titles import AeTitles
from ..core.events import Event, EventType
from ..delivery.port import Clock, Fence, Unreachable, no_fence
from ..settings import Webhook

_NAMESPACE: Final = uuid.UUID("6c1f0f5a-93a8-4d0e-9d2c-0a6d9e0f7b11")
_MAX_ANSWER: Final = 64 * 1024
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}


class WebhookChannel:
    """The delivery channel of one webhook; see delivery.port.Channel.

    Args:
        webhook: its settings. Its AE title's subscriptions decide which events it gets.
        receiving_ae: its AE title as spelled everywhere in the worklist.
        session: sends the requests; closed by the caller.
        encode: returns an event as DICOM JSON.
        clock: for the timestamps.
        index: distinguishes webhooks with the same AE title and URL.
        fence: see delivery.port.Fence.

    Raises:
        ValueError: the secret begins with ``whsec_`` but is not base64.
    """

    def __init__(
        self,
        webhook: Webhook,
        receiving_ae: str,
        session: aiohttp.ClientSession,
        encode: Callable[[Event], bytes],
        clock: Clock,
        index: int = 0,
        fence: Fence = no_fence,
    ) -> None:
        self._fence = fence
        self.name = _name(webhook, index)
        self._webhook = webhook
        self._receiving_ae = receiving_ae
        self._session = session
        self._encode = encode
        self._clock = clock
        self._secret = _key(webhook)
        self._timeout = aiohttp.ClientTimeout(total=webhook.timeout)
        self._attempt = ("", 0)

    def serves(self, receiving_ae: str) -> bool:
        """True for the AE title of this webhook."""
        return receiving_ae == self._receiving_ae

    async def deliver(self, receiving_ae: str, events: Sequence[Event]) -> int:
        """POST the events in order, as far as they are accepted; types that are not configured count as accepted.

        Raises Unreachable if the first was not accepted.
        """
        for accepted, event in enumerate(events):
            if int(event.type) not in self._webhook.event_types:
                continue
            try:
                await self._post(receiving_ae, event)
            except Unreachable:
                if not accepted:
                    raise
                return accepted
        return len(events)

    async def close(self) -> None:
        """Do nothing: the session owns the connections."""

    async def _post(self, receiving_ae: str, event: Event) -> None:
        body = self._encode(event)
        headers = self._headers(receiving_ae, event, body)
        self._fence()
        try:
            async with self._session.post(
                self._webhook.url, data=body, headers=headers, allow_redirects=False, timeout=self._timeout
            ) as answer:
                await answer.content.read(_MAX_ANSWER)
                status = answer.status
        except TimeoutError as error:
            raise Unreachable(f"no answer within {self._webhook.timeout:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unreachable(_reason(error)) from error
        if not 200 <= status < 300:
            raise Unreachable(_refusal(status))

    def _headers(self, receiving_ae: str, event: Event, body: bytes) -> dict[str, str]:
        delivery = _delivery_id(self.name, receiving_ae, event)
        previous, attempts = self._attempt
        self._attempt = (delivery, attempts + 1 if delivery == previous else 1)
        timestamp = str(int(self._clock.now()))
        headers = {
            "content-type": "application/dicom+json",
            "user-agent": f"orthanc-ups/{__version__}",
            "webhook-id": delivery,
            "webhook-timestamp": timestamp,
            "ups-sequence": str(event.sequence),
            "ups-event-type": str(int(event.type)),
            "ups-receiving-ae": receiving_ae,
            "ups-attempt": str(self._attempt[1]),
        }
        if self._secret:
            headers["webhook-signature"] = signature(self._secret, delivery, timestamp, body)
        return headers


def webhook_channels(
    webhooks: Sequence[Webhook],
    titles: AeTitles,
    session: aiohttp.ClientSession,
    encode: Callable[[Event], bytes],
    clock: Clock,
    fence: Fence = no_fence,
) -> tuple[WebhookChannel, ...]:
    """The channels of all configured webhooks. Raises ValueError if the secret of one is not base64."""
    return tuple(
        WebhookChannel(webhook, titles.use(webhook.aet), session, encode, clock, index, fence)
        for webhook, index in _numbered(webhooks)
    )


def webhook_names(webhooks: Sequence[Webhook]) -> dict[str, str]:
    """The name shown for each channel: the configured name, otherwise the host."""
    return {
        _name(webhook, index): webhook.name or urlsplit(webhook.url).hostname or "nowhere"
        for webhook, index in _numbered(webhooks)
    }


def _numbered(webhooks: Sequence[Webhook]) -> Iterator[tuple[Webhook, int]]:
    """Each webhook with the number of earlier ones that have the same AE title and URL."""
    counts: Counter[tuple[str, str]] = Counter()
    for webhook in webhooks:
        receiver = webhook.aet, webhook.url
        yield webhook, counts[receiver]
        counts[receiver] += 1


def signature(secret: bytes, delivery: str, timestamp: str, body: bytes) -> str:
    """The value of ``webhook-signature``."""
    digest = hmac.digest(secret, f"{delivery}.{timestamp}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(digest).decode()


def _delivery_id(channel: str, receiving_ae: str, event: Event) -> str:
    """Identifies an event of a receiver; the sequence of an SCP Status Change need not be unique, but its time is."""
    moment = event.at if event.type is EventType.SCP_STATUS_CHANGE else 0.0
    parts = (channel, receiving_ae, event.sequence, int(event.type), event.uid, moment)
    return str(uuid.uuid5(_NAMESPACE, "\0".join(map(str, parts))))


def _name(webhook: Webhook, index: int) -> str:
    """A channel name without the parts of the URL that may be secret; it changes only with AE title or URL."""
    digest = hashlib.sha256(f"{webhook.aet}\0{webhook.url}\0{index or ''}".encode()).hexdigest()[:8]
    return f"webhook:{urlsplit(webhook.url).hostname or 'nowhere'}/{digest}"


def _key(webhook: Webhook) -> bytes:
    if not webhook.secret.startswith(ENCODED_SECRET):
        return webhook.secret.encode()
    try:
        return base64.b64decode(webhook.secret.removeprefix(ENCODED_SECRET), validate=True)
    except binascii.Error as error:
        raise ValueError(
            f'the secret of the webhook of {webhook.aet} begins with "whsec_" but is not base64'
        ) from error


def _refusal(status: int) -> str:
    if 300 <= status < 400:
        return f"it answered HTTP {status}; redirects are not followed"
    return f"it answered HTTP {status} {_PHRASES.get(status, '')}".rstrip()


def _reason(error: Exception) -> str:
    """Why a request failed, without its URL."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect: {error.os_error.strerror or error.os_error}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection without an answer"
    return f"the request failed ({type(error).__name__})"
