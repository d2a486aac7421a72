# SPDX-License-Identifier: AGPL-3.0-or-later
"""How often unknown AEs make the plugin read the modalities from Orthanc, and how long they wait for it."""

import asyncio
from typing import Any, cast

import pytest

from orthanc_ups.core.ae_titles import AeTitles
from orthanc_ups.orthanc.loopback import Loopback, Reply
from orthanc_ups.orthanc.modalities import OrthancModalities


class Scene:
    """A clock of its own; Orthanc takes ``takes`` seconds for each answer."""

    def __init__(self, takes: float) -> None:
        self.now = 100.0
        self.takes = takes
        self.pauses: list[float] = []
        self.asked_at: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    async def request(self, *_: Any) -> Reply:
        self.asked_at.append(self.now)
        self.now += self.takes
        return Reply(200, b"{}")


@pytest.mark.parametrize(("takes", "between"), [(0.001, 0.05), (0.02, 0.2), (3.0, 3.0)])
def test_a_refusal_of_an_unknown_ae_waits_no_longer_than_orthanc_has_to_be_spared(
    monkeypatch: pytest.MonkeyPatch, takes: float, between: float
) -> None:
    """A twentieth of a second as a rule; Orthanc is busy with it a tenth of the time at most, unless it hangs."""
    scene = Scene(takes)
    monkeypatch.setattr(asyncio, "sleep", scene.sleep)

    async def run() -> None:
        modalities = OrthancModalities(cast("Loopback", scene), AeTitles(), clock=scene.clock)
        for number in range(4):
            assert await modalities.lookup(f"STRANGER{number}") == ()

    asyncio.run(run())
    gaps = [later - before for before, later in zip(scene.asked_at, scene.asked_at[1:], strict=False)]
    assert gaps == pytest.approx([between] * 3)
