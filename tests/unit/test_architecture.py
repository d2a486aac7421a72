# SPDX-License-Identifier: AGPL-3.0-or-later
"""The layout stays as ARCHITECTURE.md draws it."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGE = CHECKOUT / "plugin" / "orthanc_ups"
SOURCES = sorted(PACKAGE.rglob("*.py"))

# From the innermost folder to the outermost: each may import itself and those before it.
# "" are the modules directly in the package that hold values: settings and their reader.
LAYERS = (
    "core",
    "",
    "codecs",
    "orthanc",
    "store",
    "projection",
    "delivery",
    "worklist",
    "dimse",
    "dicomweb",
    "webhook",
    "transfer",
    "management",
    "monitoring",
)
STRANGERS = {"dimse": {"dicomweb"}, "dicomweb": {"dimse"}}
# The modules that put everything together.
COMPOSITION = {"app.py", "service.py", "site.py", "management/inspection.py", "management/operating.py"}
# Imports against the order that are still to be resolved.
EXCEPTIONS = {
    "orthanc/hooks.py": {"store"},
    "orthanc/loopback.py": {"store"},
    "orthanc/orthanc_modalities.py": {"store"},
    "transfer/routes.py": {"management"},
}
FORBIDDEN_IN_CORE = {
    "orthanc", "pynetdicom", "pydicom", "aiohttp", "socket", "threading", "asyncio", "random",
    "secrets", "time", "sqlite3", "os", "subprocess", "requests",
}  # fmt: skip


def imports(path: Path) -> Iterator[str]:
    """Absolute names of what a file imports."""
    package = ["orthanc_ups", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def folder(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def folder_of_import(name: str) -> str | None:
    parts = name.split(".")
    if parts[0] != "orthanc_ups":
        return None
    return parts[1] if len(parts) > 1 and (PACKAGE / parts[1]).is_dir() else ""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    name = path.relative_to(PACKAGE).as_posix()
    if name in COMPOSITION:
        return
    layer = folder(path)
    allowed = {*LAYERS[: LAYERS.index(layer) + 1], *EXCEPTIONS.get(name, ())} - STRANGERS.get(layer, set())
    wrong = [name for name in imports(path) if folder_of_import(name) not in (None, *allowed)]
    assert not wrong


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").glob("*.py")), ids=lambda path: path.stem)
def test_the_core_is_pure(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path)} & FORBIDDEN_IN_CORE


def test_only_the_entry_script_imports_orthanc_and_it_is_short() -> None:
    script = CHECKOUT / "plugin" / "ups_plugin.py"
    assert len(script.read_text().splitlines()) <= 30
    assert "orthanc" in set(imports_of_script(script))
    assert not [path for path in SOURCES if "orthanc" in set(imports(path))]


def imports_of_script(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", *patterns], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    return [CHECKOUT / name for name in listed.stdout.split() if (CHECKOUT / name).exists()]


def test_every_file_is_licensed() -> None:
    notice = "SPDX-License-Identifier: AGPL-3.0-or-later"
    assert not [path for path in tracked("*.py") if notice not in path.read_text().partition("\n")[0]]
