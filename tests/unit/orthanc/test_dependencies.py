# SPDX-License-Identifier: AGPL-3.0-or-later
"""A start without the Python packages says in one line which are missing and how to get them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from orthanc_ups.orthanc.dependencies import PACKAGES, ensure, ensure_calls
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


def test_an_archive_brings_its_own_for_each_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come before those of the system, whose versions nobody has tested."""
    monkeypatch.setattr("sys.path", list(sys.path))
    site = tmp_path / "site" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    site.mkdir(parents=True)
    (site / "brought_along.py").touch()
    ensure(pytest.fail, ("brought_along",), tmp_path)
    assert sys.path[0] == str(site)


def test_an_archive_without_those_of_this_python_says_so(tmp_path: Path) -> None:
    (tmp_path / "site" / "python3.9").mkdir(parents=True)
    lines: list[str] = []
    with pytest.raises(SystemExit):
        ensure(lines.append, ("no_such_package",), tmp_path)
    (line,) = lines
    assert "the archive has them for python3.9 only" in line


def test_an_orthanc_that_is_too_old_is_told_what_it_lacks() -> None:
    lines: list[str] = []
    old = SimpleNamespace(LogError=lines.append, GetConfiguration=str)
    with pytest.raises(SystemExit):
        ensure_calls(old)
    (line,) = lines
    assert "SetRootUri2" in line and "GetConfiguration" not in line
    assert line.endswith("Expected Orthanc 1.12.4 with Python plugin 5.0 or later")
