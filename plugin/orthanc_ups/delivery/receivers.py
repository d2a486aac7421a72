# SPDX-License-Identifier: AGPL-3.0-or-later
"""The AEs to which events can be sent (PS3.4 CC.2.3: an unknown Receiving AE is refused with C308)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from ..core.commands import Requester
from ..orthanc.modalities import OrthancModalities
from .port import Channel


class KnownReceivers:
    """An AE is known if Orthanc has an address for it, a channel serves it, or it subscribed by UPS-RS or was imported.

    ``used_before``: the AE titles of existing subscriptions.
    """

    def __init__(
        self,
        modalities: OrthancModalities,
        channels: Iterable[Channel],
        used_before: Callable[[], Collection[str]],
    ) -> None:
        self._modalities = modalities
        self._channels = tuple(channels)
        self._used_before = used_before

    def unknown(self, receiving_aes: Iterable[str]) -> tuple[str, ...]:
        """The AEs to which events cannot be sent, without asking Orthanc again; they may still open a WebSocket."""
        return tuple(
            ae
            for ae in receiving_aes
            if not self._modalities.by_ae_title(ae)
            and not any(channel.serves(ae) for channel in self._channels)
            and ae not in self._used_before()
        )

    async def is_known(self, receiving_ae: str, requester: Requester) -> bool:
        """True if events can be sent to the AE.

        An AE that subscribes by UPS-RS may open its WebSocket later; an imported one was known to the other worklist.
        """
        if requester.via in ("UPS-RS", "import") or any(
            channel.serves(receiving_ae) for channel in self._channels
        ):
            return True
        if await self._modalities.lookup(receiving_ae):
            return True
        return receiving_ae in self._used_before()
