# SPDX-License-Identifier: AGPL-3.0-or-later
"""The plugin now against the plugin at an earlier commit, in turns on the same machine.

Both run on the same Orthanc with the same libraries, each as its own defaults have it: the commit before keeps the
worklist as metadata, the present one in the key-value store.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tests.bench import client_dimse, client_http
from tests.bench.measuring import run_client
from tests.bench.part_dimse import MODALITIES, Rates
from tests.bench.report import Part, Row, median
from tests.support.orthanc import CHECKOUT, PLUGIN, Json, RealOrthanc
from tests.support.ports import free_port, is_listening

BEFORE: Final = "ad2418b"
"""The last commit before the key-value store."""
ROUNDS: Final = 5
SUBSCRIBERS: Final = 50
CHANGES: Final = 20
EACH: Final[Mapping[int, int]] = {1: 150, 8: 30}
AIMS: Final[Mapping[str, Mapping[int, float]]] = {
    "N-CREATE": {1: 1.8, 8: 1.5},
    "N-SET": {1: 2.2, 8: 1.8},
    "N-GET": {},
    "Change State": {1: 2.2, 8: 1.8},
    "create": {1: 1.8, 8: 1.5},
    "change state": {1: 2.2, 8: 1.8},
}
_TIMES: Final = " (times)"
_runs = iter(range(1, 1_000_000))
Both = Mapping[str, RealOrthanc]


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """The files of a commit in a folder that is deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="orthanc-ups-before-") as folder:
        archive = subprocess.run(
            ["git", "-C", str(CHECKOUT), "archive", commit, "plugin"], check=True, stdout=subprocess.PIPE
        )
        subprocess.run(["tar", "--extract", "--directory", folder], check=True, input=archive.stdout)
        yield Path(folder)


class Earlier(RealOrthanc):
    """One whose plugin has no route yet that tells of its health."""

    def health(self) -> int:
        """200 once it listens."""
        return 200 if is_listening(self.ups_http_port) else 0


@contextmanager
def both(suite: str, overrides: Json) -> Iterator[Both]:
    """An Orthanc with the plugin as it was, and one with it as it is, both prepared but not started."""
    with checkout(BEFORE) as folder, ExitStack() as stack:
        servers = {
            "before": Earlier(suite, overrides, script=folder / "plugin" / PLUGIN.name),
            "now": RealOrthanc(suite, overrides),
        }
        for orthanc in servers.values():
            stack.callback(orthanc.discard)
        yield servers


def before(suite: str, attempts: int) -> Part:
    """Every operation, in turns."""
    listening = free_port()
    listeners = {f"l{n}": [f"LISTENER{n}", "127.0.0.1", listening] for n in range(SUBSCRIBERS)}
    with both(suite, {"DicomModalities": {**MODALITIES, **listeners}}) as servers:
        for orthanc in servers.values():
            orthanc.start()
        rounds = max(ROUNDS, attempts)
        measured = [{name: _round(orthanc, listening) for name, orthanc in _turn(servers, number)}
                    for number in range(rounds + 1)][1:]  # fmt: skip
        created = (rounds + 1) * (2 * sum(many * each for many, each in EACH.items()) + CHANGES)
        disk = {name: _disk(orthanc, created) for name, orthanc in servers.items()}
    rows = [
        _row(f"{name}, {_where(name, many)}", f"{name} {many}", measured, AIMS[name].get(many))
        for name in AIMS
        for many in EACH
    ]
    rows += [
        _row(f"{what} per Change State, {_where('N', many)}", f"Change State ({key}) {many}", measured, aim)
        for what, key, aim in (("loop CPU", "loop", 0.45), ("CPU of Orthanc", "process", None))
        for many in EACH
    ]
    rows += [
        _row(
            f"{what} per change state, {_where('change', many)}",
            f"change state ({key}) {many}",
            measured,
            None,
        )
        for what, key in (("loop CPU", "loop"), ("CPU of Orthanc", "process"))
        for many in EACH
    ]
    rows.append(_row(f"N-EVENT-REPORTs to {SUBSCRIBERS} subscribers", "reports", measured, 2.0))
    rows += [
        _row(f"{what} per N-EVENT-REPORT", f"reports ({key})", measured, None)
        for what, key in (("loop CPU", "loop"), ("CPU of Orthanc", "process"))
    ]
    ratio = disk["now"] / disk["before"]
    sizes = [f"{disk[name] / 1000:.1f} KB" for name in ("now", "before")]
    rows.append(Row("on disk per workitem", sizes[0], sizes[1], f"{ratio:.2f}", "≤ 0.6", ratio <= 0.6))
    return Part(
        "Before and now",
        f"The plugin as of commit {BEFORE} (which keeps the worklist as metadata) and now, in turns: medians of "
        f"{rounds} rounds, after one that warms up. Per second, by the median time of a message, as the machine may be "
        "shared; of processor time, milliseconds. Workitems of 140 "
        "elements; a round of one association or connection has "
        f"{EACH[1]} messages of each kind, one of eight {8 * EACH[8]}.",
        rows,
        ("", "now", "before", "ratio", "aim", "met"),
    )


def _disk(orthanc: RealOrthanc, workitems: int) -> float:
    """Bytes per workitem after a clean stop: all that Orthanc and the plugin keep."""
    orthanc.stop()
    files = [path for path in (orthanc.folder / "data").rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files) / workitems


def _turn(servers: Both, number: int) -> list[tuple[str, RealOrthanc]]:
    """Who comes first changes from round to round."""
    return sorted(servers.items(), reverse=bool(number % 2))


def _round(orthanc: RealOrthanc, listening: int) -> dict[str, float]:
    result: dict[str, float] = {}

    def take(rates: Rates, many: int = 0) -> None:
        """Of messages as many per second as fit into the median time: what others do to the machine falls out."""
        for name, values in rates.items():
            if name.endswith(_TIMES):
                result[f"{name.removesuffix(_TIMES)} {many}"] = many / median(values)
            elif name not in AIMS:
                result[f"{name} {many}" if many else name] = median(values)

    for many, each in EACH.items():
        run, pid = f"6.{next(_runs)}", orthanc.pid
        by_dimse = run_client(
            client_dimse.life,
            port=orthanc.ups_dicom_port,
            associations=many,
            each=each,
            run=f"{run}.1",
            pid=pid,
        )
        by_http = run_client(
            client_http.life,
            port=orthanc.ups_http_port,
            connections=many,
            each=each,
            run=f"{run}.2",
            limit=2,
            pid=pid,
        )
        take(by_dimse, many)
        take(by_http, many)
    take(
        run_client(
            client_dimse.crowd,
            port=orthanc.ups_dicom_port,
            listening=listening,
            subscribers=SUBSCRIBERS,
            count=CHANGES,
            run=f"6.{next(_runs)}.3",
            pid=orthanc.pid,
        )
    )
    return result


def _where(name: str, many: int) -> str:
    what = "association" if name[0] in "NC" else "connection"
    return f"{many} {what}{'s' * (many > 1)}"


def _row(what: str, key: str, rounds: list[dict[str, dict[str, float]]], aim: float | None) -> Row:
    """Rates: the more the better; processor time (with an aim below 1): the less the better."""
    now, then = (median([rates[name][key] for rates in rounds]) for name in ("now", "before"))
    ratio = now / then
    is_cost = "CPU" in what
    form: Callable[[float], str] = _cost if is_cost else _rate
    words = "" if aim is None else f"{'≤' if is_cost else '≥'} {aim:g}"
    met = None if aim is None else (ratio <= aim if is_cost else ratio >= aim)
    return Row(what, form(now), form(then), f"{ratio:.2f}", words, met)


def _cost(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


def _rate(rate: float) -> str:
    return f"{rate:,.0f} /s"


PARTS: dict[str, Callable[[str, int], Part]] = {"before": before}
