# SPDX-License-Identifier: AGPL-3.0-or-later
"""Speed against floors that are measured in the same run: ``python -m tests.bench [PART…]``."""

from __future__ import annotations

import argparse
import platform
import sys
import time
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "plugin")]

from tests.bench import (  # noqa: E402
    part_before,
    part_dimse,
    part_http,
    part_modality_worklist,
    part_postgresql,
    part_rules,
    part_size,
)
from tests.bench.report import Part  # noqa: E402
from tests.support.orthanc import SUITES, fetch  # noqa: E402

PARTS = {
    **part_before.PARTS,
    **part_dimse.PARTS,
    **part_size.PARTS,
    **part_http.PARTS,
    **part_rules.PARTS,
    **part_modality_worklist.PARTS,
    **part_postgresql.PARTS,
}
RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> int:
    """Measure, print each table, and write all of them down after a whole run. 1 if an aim was missed.

    A part that fails does not end the others; then nothing is written down, and the result is 2.
    """
    options = _options()
    fetch(options.suite)
    parts: dict[str, Part] = {}
    seconds: dict[str, float] = {}
    names = options.parts or list(PARTS)
    for name in names:
        begun = time.monotonic()
        try:
            parts[name] = _measured(name, options)
        except Exception:
            traceback.print_exc()
        seconds[name] = time.monotonic() - begun
        print(f"{name} took {seconds[name]:.0f} s", file=sys.stderr, flush=True)
    head = _head(options, seconds)
    print(head)
    if len(parts) < len(names):
        return 2
    if not options.parts:
        RESULTS.write_text("\n".join([head, *map(str, parts.values())]))
    return int(any(row.is_met is False for part in parts.values() for row in part.rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"which of {', '.join(PARTS)} (default: all)"
    )
    parser.add_argument("--suite", choices=SUITES, default="forky", help="Debian suite of the Orthanc")
    parser.add_argument("--attempts", type=int, default=2, help="how often each part is measured")
    options = parser.parse_args()
    unknown = set(options.parts) - PARTS.keys()
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return options


def _measured(name: str, options: argparse.Namespace) -> Part:
    print(f"measuring {name} …", file=sys.stderr, flush=True)
    part = PARTS[name](options.suite, options.attempts)
    print(part, flush=True)
    return part


def _head(options: argparse.Namespace, seconds: Mapping[str, float]) -> str:
    cores = len(
        [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("processor")]
    )
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    machine = f"{platform.machine()}, {cores} cores shared by client and server"
    times = ", ".join(f"{name} {took / 60:.1f}" for name, took in seconds.items())
    return (
        f"Orthanc of Debian {options.suite}, {machine}, {when}. Minutes of each part: {times}; "
        f"{sum(seconds.values()) / 60:.0f} in all.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
