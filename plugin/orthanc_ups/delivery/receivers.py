# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which AE titles can be sent events (PS3.4 CC.2.3: an unknown Receiving AE is C308)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from ..core.commands import Requester
from ..orthanc.modalities import OrthancModalities
from .port import Channel


class KnownReceivers:
    """An AE is known if Orthanc has an address for it, a channel serves it, or it uses UPS-RS or was imported."""

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
        """AE titles to which events cannot be sent, as far as memory tells; they may still open a WebSocket."""
        return tuple(
            ae
            for ae in receiving_aes
            if not self._modalities.by_ae_title(ae)
            and not any(channel.serves(ae) for channel in self._channels)
            and ae not in self._used_before()
        )

    async def is_known(self, receiving_ae: str, requester: Requester) -> bool:
        """True if events can be sent to the AE. By UPS-RS it may still be about to open its WebSocket.

        So may one that comes with an export: it was known where it comes from.
        """
        if requester.via in ("UPS-RS", "import") or any(
            channel.serves(receiving_ae) for channel in self._channels
        ):
            return True
        if await self._modalities.lookup(receiving_ae):
            return True
        return receiving_ae in self._used_before()
