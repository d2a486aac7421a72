# SPDX-License-Identifier: AGPL-3.0-or-later
"""Hypothesis strategies of data sets in the inner form, with every VR and whatever the rules allow in it."""

from base64 import b64encode
from typing import Any

from hypothesis import strategies as st

from orthanc_ups.core.dataset import DataSet, Element

_LINE = st.characters(
    exclude_categories=("Cc", "Cs"), exclude_characters="\\\ufffe\uffff\x7f", max_codepoint=0x1FFFF
)
_BLOCK = st.one_of(
    st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff"),
    st.sampled_from("\t\n\f\r"),
)
_UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_ "
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F))).replace("\\", "")


def _line(longest: int) -> st.SearchStrategy[str]:
    return st.text(_LINE, min_size=1, max_size=longest)


def _block(longest: int) -> st.SearchStrategy[str]:
    return st.text(_BLOCK, min_size=1, max_size=longest)


def _integers(low: int, high: int) -> st.SearchStrategy[int]:
    return st.one_of(st.integers(low, high), st.sampled_from((low, high)))


_DECIMALS = st.one_of(
    st.from_regex(
        r"[+-]?(?:[0-9]{1,6}(?:\.[0-9]{0,4})?|\.[0-9]{1,4})(?:[eE][+-]?[0-9]{1,2})?", fullmatch=True
    ),
    st.sampled_from(
        ("1.50", "0", "-0", "007", "+1.5", ".5", "1.", "1E400", "0.10", "9999999999999999", " 2 ")
    ),
)
_FLOATS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(("NaN", "Infinity", "-Infinity"))
)
_UIDS = st.lists(st.integers(0, 10**9), min_size=1, max_size=6).map(lambda parts: ".".join(map(str, parts)))
_GROUP = st.lists(
    st.text(
        st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="\\^=\ufffe\uffff\x7f"), max_size=8
    ),
    min_size=1,
    max_size=5,
).map("^".join)
_NAMES = st.dictionaries(
    st.sampled_from(("Alphabetic", "Ideographic", "Phonetic")), _GROUP.filter(bool), min_size=1
)

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "AE": st.text(_PRINTABLE, min_size=1, max_size=16),
    "AS": st.from_regex(r"[0-9]{3}[DWMY]", fullmatch=True),
    "AT": st.from_regex(r"[0-9A-F]{8}", fullmatch=True),
    "CS": st.text(_UPPER, min_size=1, max_size=16),
    "DA": st.dates().map(lambda day: f"{day.year:04}{day.month:02}{day.day:02}"),
    "DS": _DECIMALS,
    "DT": st.sampled_from(("2026", "20261122183000", "20261122183000.123456+0100", "20261122-1200")),
    "FD": _FLOATS,
    "FL": _FLOATS,
    "IS": st.one_of(st.integers(-(2**31), 2**31 - 1).map(str), st.sampled_from(("+7", "-0", "012"))),
    "LO": _line(20),
    "LT": _block(30),
    "PN": _NAMES,
    "SH": _line(16),
    "SL": _integers(-(2**31), 2**31 - 1),
    "SS": _integers(-(2**15), 2**15 - 1),
    "ST": _block(30),
    "SV": _integers(-(2**63), 2**63 - 1),
    "TM": st.sampled_from(("18", "183000", "183000.5")),
    "UC": _line(30),
    "UI": _UIDS,
    "UL": _integers(0, 2**32 - 1),
    "UR": st.text(_PRINTABLE, min_size=1, max_size=30),
    "US": _integers(0, 2**16 - 1),
    "UT": _block(40),
    "UV": _integers(0, 2**64 - 1),
}
"""One value of each VR that has `Value`, sequences apart."""

WIDTHS = {"OB": 1, "OD": 8, "OF": 4, "OL": 4, "OV": 8, "OW": 2, "UN": 1}
"""Bytes in a word of each VR that has `InlineBinary`."""

_SINGLE = ("LT", "ST", "UR", "UT")
_PRIVATE_BLOCK = {"00770010": {"vr": "LO", "Value": ['HARBOUR CLINIC "A&B" <1>']}}


def _words(vr: str) -> st.SearchStrategy[Element]:
    content = st.integers(1, 6).flatmap(lambda n: st.binary(min_size=n * WIDTHS[vr], max_size=n * WIDTHS[vr]))
    return content.map(lambda octets: {"vr": vr, "InlineBinary": b64encode(octets).decode()})


def _with_values(vr: str) -> st.SearchStrategy[Element]:
    count = 1 if vr in _SINGLE else 3
    several = st.lists(st.one_of(VALUES[vr], st.none()), min_size=1, max_size=count)
    return several.filter(lambda values: values != [None]).map(lambda values: {"vr": vr, "Value": values})


def elements() -> st.SearchStrategy[Element]:
    """An element of any VR but SQ: empty, with values or binary."""
    empty = st.sampled_from((*VALUES, *WIDTHS, "SQ")).map(lambda vr: {"vr": vr})
    valued = st.sampled_from(tuple(VALUES)).flatmap(_with_values)
    return st.one_of(valued, valued, st.sampled_from(tuple(WIDTHS)).flatmap(_words), empty)


_TAGS = st.integers(0x00080008, 0x7FDFFFFF).map(lambda number: f"{number:08X}")
_PUBLIC = _TAGS.filter(lambda tag: int(tag[3], 16) % 2 == 0 and not tag.endswith("0000"))
_OWN = st.integers(0, 0xFF).map(lambda number: f"007710{number:02X}")


def _sorted(dataset: DataSet) -> DataSet:
    private = _PRIVATE_BLOCK if any(tag.startswith("0077") for tag in dataset) else {}
    return dict(sorted({**dataset, **private}.items()))


def _sequences(items: st.SearchStrategy[DataSet]) -> st.SearchStrategy[Element]:
    return st.lists(items, min_size=1, max_size=2).map(lambda sequence: {"vr": "SQ", "Value": sequence})


def _level(content: st.SearchStrategy[Element]) -> st.SearchStrategy[DataSet]:
    return st.dictionaries(st.one_of(_PUBLIC, _OWN), content, max_size=5).map(_sorted)


def datasets() -> st.SearchStrategy[DataSet]:
    """A data set of up to three levels, private elements with their creator included."""
    return st.recursive(
        _level(elements()), lambda inner: _level(st.one_of(elements(), _sequences(inner))), max_leaves=6
    )
