# SPDX-License-Identifier: AGPL-3.0-or-later
"""The layout stays as ARCHITECTURE.md draws it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
ARCHITECTURE = CHECKOUT / "ARCHITECTURE.md"
PACKAGE = CHECKOUT / "plugin" / "orthanc_ups"
SOURCES = sorted(PACKAGE.rglob("*.py"))

# From the innermost folder to the outermost: each may import itself and those before it.
# "" are the modules directly in the package that hold values: settings and their reader.
LAYERS = (
    "core",
    "codecs",
    "",
    "orthanc",
    "store",
    "projection",
    "delivery",
    "worklist",
    "dimse",
    "dicomweb",
    "webhook",
    "modality",
    "transfer",
    "management",
    "rules",
    "monitoring",
    "cluster",
    "site",
)
STRANGERS = {"dimse": {"dicomweb"}, "dicomweb": {"dimse"}}
# The modules that put everything together.
COMPOSITION = {
    "__init__.py",
    "app.py",
    "service.py",
    "management/inspection.py",
    "management/operating.py",
    "rules/automation.py",
}
# Imports against the order that are still to be resolved.
EXCEPTIONS = {
    "transfer/routes.py": {"management"},
}
# Who alone may use a library: folders, or single modules.
USERS = {
    "pydicom": {"codecs", "dimse", "store"},
    "pynetdicom": {"dimse/negotiation.py"},
    "aiohttp": {"orthanc", "dicomweb", "webhook", "cluster", "site"},
    "psycopg": {"cluster"},
    "cryptography": {"cluster"},
    "sqlite3": {"projection", "store"},
}
FORBIDDEN_IN_CORE = {
    "orthanc", "pynetdicom", "pydicom", "aiohttp", "socket", "threading", "asyncio", "random",
    "secrets", "time", "sqlite3", "os", "subprocess", "requests",
}  # fmt: skip


@cache
def parsed(path: Path) -> ast.Module:
    """A module of the package, the tests or the tools."""
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> frozenset[str]:
    """Absolute names of what a file imports."""
    names: set[str] = set()
    package = ["orthanc_ups", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return frozenset(names)


def folder(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


@cache
def folder_of_import(name: str) -> str | None:
    parts = name.split(".")
    if parts[0] != "orthanc_ups":
        return None
    return parts[1] if len(parts) > 1 and (PACKAGE / parts[1]).is_dir() else ""


def allowed_folders(path: Path) -> set[str]:
    """Folders that a module may import from."""
    name, layer = path.relative_to(PACKAGE).as_posix(), folder(path)
    return {*LAYERS[: LAYERS.index(layer) + 1], *EXCEPTIONS.get(name, ())} - STRANGERS.get(layer, set())


def test_folders_import_only_those_before_them() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in SOURCES
        if path.relative_to(PACKAGE).as_posix() not in COMPOSITION
        for name in imports(path)
        if folder_of_import(name) not in (None, *allowed_folders(path))
    ]
    assert wrong == []


def test_the_core_is_pure() -> None:
    """No sockets, threads, clock or randomness, and nothing of Orthanc, pydicom or pynetdicom."""
    impure = {
        path.name: result
        for path in sorted((PACKAGE / "core").glob("*.py"))
        if (result := {name.split(".")[0] for name in imports(path)} & FORBIDDEN_IN_CORE)
    }
    assert impure == {}


@pytest.mark.parametrize("library", USERS)
def test_a_library_is_used_where_architecture_says(library: str) -> None:
    users = [path for path in SOURCES if library in {name.split(".")[0] for name in imports(path)}]
    assert users
    names = {path.relative_to(PACKAGE).as_posix(): folder(path) for path in users}
    assert {name for name, file in names.items() if not {name, file} & USERS[library]} == set()


def test_the_table_of_folders_is_in_the_order_of_imports() -> None:
    table = re.findall(r"^\| `(\w+)/` \|", ARCHITECTURE.read_text(), re.MULTILINE)
    assert table == [*filter(None, LAYERS), "explorer"]


def test_every_module_that_is_named_is_there() -> None:
    """In ARCHITECTURE, and in the package's own comments and docstrings."""
    texts = {path: path.read_text() for path in (ARCHITECTURE, *SOURCES)}
    named = re.compile(r"\b((?:" + "|".join(filter(None, LAYERS)) + r")/\w+\.(?:py|csv))\b")
    missing = {
        f"{path.name} names {name}"
        for path, text in texts.items()
        for name in named.findall(text)
        if not (PACKAGE / name).exists()
    }
    assert missing == set()


def test_every_module_that_a_row_of_the_table_names_is_in_that_folder() -> None:
    rows = re.findall(r"^\| `(\w+)/` \|(.*)\|$", ARCHITECTURE.read_text(), re.MULTILINE)
    missing = {
        f"{layer}/{name}"
        for layer, words in rows
        for name in re.findall(r"`(\w+\.(?:py|js|csv))`", words)
        if not (PACKAGE / layer / name).exists()
    }
    assert missing == set()


def test_every_method_that_architecture_names_is_there() -> None:
    methods = {
        f"{node.name}.{member.name}"
        for path in SOURCES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef)
        for member in node.body
        if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    classes = {method.partition(".")[0] for method in methods}
    names = re.findall(r"`([A-Z]\w+)\.([a-z_]\w+)`", ARCHITECTURE.read_text())
    assert names
    assert {f"{name}.{member}" for name, member in names if name in classes} <= methods


def test_few_modules_lie_loose() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 8


def test_a_name_is_a_class_once() -> None:
    names: dict[str, list[str]] = {}
    for path in SOURCES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                names.setdefault(node.name, []).append(path.relative_to(PACKAGE).as_posix())
    assert {name: modules for name, modules in names.items() if len(modules) > 1} == {}


def test_only_the_entry_script_imports_orthanc_and_it_is_short() -> None:
    script = CHECKOUT / "plugin" / "ups_plugin.py"
    assert len(script.read_text().splitlines()) <= 30
    assert "orthanc" in set(imports_of_script(script))
    assert not [path for path in SOURCES if "orthanc" in set(imports(path))]


def imports_of_script(path: Path) -> Iterator[str]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def sources_of_the_project() -> Iterator[Path]:
    """Without asking git: an unpacked archive is tested too."""
    for name in ("plugin", "tests", "tools", "docker"):
        yield from (CHECKOUT / name).rglob("*.py")


def test_every_file_is_licensed() -> None:
    notice = "SPDX-License-Identifier: AGPL-3.0-or-later"
    unlicensed = [
        path for path in sources_of_the_project() if notice not in path.read_text().partition("\n")[0]
    ]
    assert unlicensed == []


def reached_into(path: Path) -> list[str]:
    """Underscored members that a test uses of what it did not define, or replaces."""
    module = parsed(path)
    own = {node.name for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    return [
        name
        for node in ast.walk(module)
        for name in private_names(node)
        if name.startswith("_") and not name.startswith("__") and name not in own
    ]


def private_names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
        if ast.unparse(node.value) not in ("self", "cls", "super()"):
            yield node.attr
    elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("orthanc_ups"):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.Call) and "setattr" in (
        getattr(node.func, "attr", ""),
        getattr(node.func, "id", ""),
    ):
        yield from (
            str(argument.value).rpartition(".")[2]
            for argument in node.args
            if isinstance(argument, ast.Constant)
        )


def test_tests_see_what_the_plugin_shows() -> None:
    """A test that knows the inside of a class forbids to change it."""
    assert {
        path.name: names for path in (CHECKOUT / "tests").rglob("*.py") if (names := reached_into(path))
    } == {}


# A noun of DICOM, HTTP, SQL or queues says what a thing is; these say that there is one.
SAYING_NOTHING = {"one", "found", "given", "made", "told", "kept", "known", "place", "most"}
# A field of an answer of the management API, whose users know it by that name.
SHOWN_TO_USERS = {("answers.py", "known")}


def bindings(module: ast.Module) -> Iterator[str]:
    """Names that a module itself gives: to variables, parameters, attributes, functions and classes."""
    for node in ast.walk(module):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.arg(arg=name) | ast.alias(asname=str(name)) | ast.ExceptHandler(name=str(name)):
                yield name
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name


def test_names_are_nouns() -> None:
    wrong = {
        (path.name, name)
        for path in sources_of_the_project()
        for name in SAYING_NOTHING.intersection(bindings(parsed(path)))
    }
    assert wrong == SHOWN_TO_USERS


METAPHORS = {"desk", "door", "house", "room", "burial", "ledger", "furnished", "farewell"}


def test_names_are_no_metaphors() -> None:
    wrong = {
        (path.name, name)
        for path in sources_of_the_project()
        for name in bindings(parsed(path))
        if METAPHORS.intersection(word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name))
    }
    assert wrong == set()


# Comments, strings and regular expressions of JavaScript, which may contain any word. Template strings are checked with
# their ``${…}``.
NO_CODE = re.compile(
    r"""
    /\*.*?\*/ | (?<!:)//[^\n]*
    | "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*'
    | (?:(?<=[(,=:!&|?\[]) | (?<=[(,=:!&|?][ ])) / (?![/*\s]) (?:[^/\\\n\[] | \\. | \[(?:[^\]\\\n]|\\.)*\])+ /
    """,
    re.DOTALL | re.VERBOSE,
)
# Participles and pronouns in place of nouns such as query, state or receiver.
NOT_FOR_THE_PAGE = {
    "asked",
    "wanted",
    "said",
    "other",
    "others",
    "fate",
    "untold",
    "mine",
    "again",
    "seen",
    "sure",
}


def test_names_of_the_page_are_nouns() -> None:
    wrong = {
        (path.name, name)
        for path in (PACKAGE / "explorer").rglob("*.js")
        for name in re.findall(r"[A-Za-z]\w*", NO_CODE.sub("", path.read_text()))
        if name in SAYING_NOTHING | NOT_FOR_THE_PAGE
    }
    assert wrong == {("subscriber.js", "known")}
