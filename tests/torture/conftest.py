# SPDX-License-Identifier: AGPL-3.0-or-later
"""One Orthanc under load for all the faults of a module; at its end it is judged whether anything was lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.containers import Podman
from tests.support.faults import UnderLoad, small_disk

_DISK = 256  # megabytes
# No signal tells it that a file may not grow, and its log goes through another process, whose file may.
_LIMITABLE = ("bash", "-c", 'exec env --ignore-signal=XFSZ "$@" > >(exec cat) 2>&1', "limitable")


@pytest.fixture(scope="module")
def load(suite: str, store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[UnderLoad]:
    """Its data are on a disk of their own, if mounting is allowed."""
    folder = tmp_path_factory.mktemp("load")
    data = folder / "orthanc" / "data"
    chosen = {"Ups": {"Store": store}}
    with small_disk(data, _DISK), UnderLoad(suite, folder, chosen, prefix=_LIMITABLE) as running:
        yield running


@pytest.fixture
def load_on_shelves(load: UnderLoad, store: str) -> UnderLoad:
    """The same, where the worklist stands on shelves that somebody can change from outside."""
    if store != "metadata":
        pytest.skip("only metadata can be changed from outside")
    return load


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """With images of its own, which all modules share; $ORTHANC_UPS_IMAGES is a folder in which they stay."""
    chosen = os.environ.get("ORTHANC_UPS_IMAGES")
    podman = Podman(Path(chosen) if chosen else tmp_path_factory.mktemp("podman"))
    yield podman
    if not chosen:
        podman.end()
