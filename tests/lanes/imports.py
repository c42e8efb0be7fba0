"""What a Python file rests on in this checkout, read from the code and not from a list: nobody can forget an input.

Counted are modules that are imported, anywhere in a file, and (where asked) what its strings name: a module that a
process of its own runs or a bundle's `_target_` names, all modules of a package whose name an f-string goes on with,
files and folders of the checkout, and the files beside modules that are no Python (SQL, rules, images).
Too much rather than too little: a lane that runs once more than it must costs minutes, one that does not run lies.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
_WRITTEN_IN = (".json", ".yaml", ".yml")


def closure(root: Path, starts: list[Path], folders: tuple[str, ...], *, names: bool) -> set[Path]:
    """The files that `starts` rest on, themselves too.

    Args:
        root: of the checkout.
        starts: Python files, and data that names modules.
        folders: paths from the root in which modules are looked up, as on sys.path.
        names: whether what strings name counts too.
    """
    found: set[Path] = set()
    waiting = list(starts)
    while waiting:
        path = waiting.pop()
        if path in found or not path.is_file() or "__pycache__" in path.parts:
            continue
        found.add(path)
        if path.suffix == ".py":
            tree = ast.parse(path.read_text())
            modules = _imported(tree, _package(root, path, folders))
            if names:
                modules |= _named(tree, "outpost." if root / "service" in path.parents else "")
                waiting += _paths(root, tree)
                waiting += _beside(path)
        elif names and path.suffix in _WRITTEN_IN:
            modules = {name for name in _DOTTED.findall(path.read_text()) if name.startswith("outpost.")}
        else:
            continue
        for module in modules:
            waiting += _files(root, module, folders)
    return found


def _imported(tree: ast.Module, package: list[str]) -> set[str]:
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # A name may be a module of its own.
            modules |= {module} | {f"{module}.{name.name}" for name in node.names}
    return modules


def _named(tree: ast.Module, prefix: str) -> set[str]:
    """Modules that strings name; `outpost.engines.*` for an f-string that begins with `outpost.engines.`.

    prefix: how their names begin; in the service `filter.yaml` is a file.
    """
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and node.values:
            first = node.values[0]
            start = first.value if isinstance(first, ast.Constant) else ""
            if isinstance(start, str) and re.fullmatch(r"(?:\w+\.)+", start):
                modules.add(f"{start}*")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if _DOTTED.fullmatch(node.value):
                modules.add(node.value)
            else:  # a program that is run by `-c`
                modules |= set(re.findall(r"\boutpost(?:\.\w+)+", node.value))
    return {module for module in modules if module.startswith(prefix)}


def _paths(root: Path, tree: ast.Module) -> Iterator[Path]:
    """Files of the checkout that strings name by their path from the root, all of a folder that is named so."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "/" in node.value.strip("/"):
            text = node.value
            if len(text) > 200 or not re.fullmatch(r"\w[\w./-]+", text):
                continue
            path = root / text
            if path.is_file():
                yield path
            elif path.is_dir():
                yield from (file for file in path.rglob("*") if file.is_file())


def _beside(path: Path) -> Iterator[Path]:
    """Files of a module's package that are no Python, in folders that are no packages too."""
    if not (path.parent / "__init__.py").exists():
        return
    for file in path.parent.iterdir():
        if file.is_file() and file.suffix not in (".py", ".pyc"):
            yield file
        elif file.is_dir() and not (file / "__init__.py").exists():
            yield from (inner for inner in file.rglob("*") if inner.is_file() and inner.suffix != ".py")


def _package(root: Path, path: Path, folders: tuple[str, ...]) -> list[str]:
    """Names of the packages that a file lies in."""
    for folder in folders:
        if (root / folder) in path.parents:
            return list(path.parent.relative_to(root / folder).parts)
    return []


def _files(root: Path, module: str, folders: tuple[str, ...]) -> list[Path]:
    """The file of a module and the `__init__` of each package on the way to it; none for a library's."""
    for folder in folders:
        at, found = root / folder, []
        for part in module.split("."):
            if part == "*":
                found += list(at.glob("*.py"))
            elif (at / part / "__init__.py").is_file():
                at = at / part
                found.append(at / "__init__.py")
            else:
                if (at / f"{part}.py").is_file():
                    found.append(at / f"{part}.py")
                break
        if found:
            return found
    return []
