# SPDX-License-Identifier: AGPL-3.0-or-later
"""How much of the package a claim passes through: ``python -m tests.bench.claim_path``.

One N-ACTION over a real association, from the first byte that the port reads to the event in the channel of a
subscriber, with the store in memory. Counts files, functions, calls, and how often a call goes to another file.
``--calls`` prints every call in its order, indented by depth; ``--functions`` each function once, by file.
"""

from __future__ import annotations

import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

PLUGIN = Path(__file__).resolve().parents[2] / "plugin"
sys.path[:0] = [str(PLUGIN)]

from tests.support.delivery import settle  # noqa: E402
from tests.support.dimse_client import UpsClient  # noqa: E402
from tests.support.dimse_server import DimseRig  # noqa: E402
from tests.support.service import TRANSACTION, ServiceRig  # noqa: E402
from tests.support.workitems import uid  # noqa: E402

PACKAGE = str(PLUGIN / "orthanc_ups")


class Trace:
    """The calls of functions of the package."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, int]] = []
        self.depths: list[int] = []

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE):
            self.calls.append((code.co_filename, code.co_qualname, code.co_firstlineno))
            self.depths.append(depth_in_package(frame))

    def summary(self) -> str:
        files = [file for file, _, _ in self.calls]
        changes = sum(file != before for before, file in pairwise(files))
        functions = set(self.calls)
        inner = sum("<" in name.rpartition(".")[2] for _, name, _ in functions)
        return (
            f"{len(set(files))} files, {len(functions)} functions ({inner} of them comprehensions and lambdas), "
            f"{len(self.calls)} calls, {changes} changes of file"
        )

    def in_order(self) -> str:
        return "\n".join(
            f"{'  ' * depth}{file.removeprefix(PACKAGE)[1:]}:{line} {name}"
            for depth, (file, name, line) in zip(self.depths, self.calls, strict=True)
        )

    def by_file(self) -> str:
        return "\n".join(
            f"{file.removeprefix(PACKAGE)[1:]}:{line} {name} x{count}"
            for (file, name, line), count in sorted(
                Counter(self.calls).items(), key=lambda item: (item[0][0], item[0][2])
            )
        )


def depth_in_package(frame: FrameType) -> int:
    depth = 0
    caller = frame.f_back
    while caller is not None:
        depth += caller.f_code.co_filename.startswith(PACKAGE)
        caller = caller.f_back
    return depth


async def prepared() -> ServiceRig:
    service = ServiceRig("A")
    await service.start()
    await service.subscribe("A", lock=False)
    await service.create(1)
    await settle()
    return service


def main() -> None:
    trace = Trace()

    async def profile(function: Any) -> None:
        sys.setprofile(function)

    with DimseRig() as rig:
        service = rig.loop.run(prepared())
        rig.worklist.execute = service.service.worklist.execute  # type: ignore[method-assign]
        with UpsClient(rig.port) as client:
            rig.loop.run(profile(trace))
            answer = client.change_state(uid(1), "IN PROGRESS", TRANSACTION)
            rig.loop.run(settle())
            rig.loop.run(profile(None))
        assert answer.code == 0, answer
        rig.loop.run(service.service.stop())
    if "--calls" in sys.argv:
        print(trace.in_order())
    if "--functions" in sys.argv:
        print(trace.by_file())
    print(trace.summary())


if __name__ == "__main__":
    main()
