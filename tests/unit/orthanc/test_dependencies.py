# SPDX-License-Identifier: AGPL-3.0-or-later
"""A start without the Python packages says in one line which are missing and how to get them."""

from __future__ import annotations

from pathlib import Path

import pytest

from orthanc_ups.orthanc.dependencies import PACKAGES, ensure
from tests.unit.test_architecture import CHECKOUT


def test_what_is_there_is_not_spoken_of() -> None:
    lines: list[str] = []
    ensure(lines.append)
    assert lines == []


def test_every_missing_package_is_named_in_one_line_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made_elsewhere.py").write_text("raise ImportError('undefined symbol:\\n_PyX')")
    (tmp_path / "needs_more.py").write_text("import no_such_part")
    monkeypatch.syspath_prepend(tmp_path)
    lines: list[str] = []
    with pytest.raises(SystemExit):
        ensure(lines.append, ("no_such_package", "made_elsewhere", "needs_more", "orjson"))
    (line,) = lines
    assert "\n" not in line
    assert (
        "no_such_package, made_elsewhere (undefined symbol: _PyX), needs_more (which needs no_such_part)"
        in line
    )
    assert f"-m pip install --requirement {CHECKOUT / 'requirements.txt'}" in line


def test_the_packages_are_those_of_the_requirements() -> None:
    required = (CHECKOUT / "requirements.txt").read_text()
    assert [name for name in PACKAGES if f"\n{name}==" not in f"\n{required}"] == []
