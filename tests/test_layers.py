"""The layers of the package: each folder imports only from those below it.

Every import counts, the deferred ones inside functions and those for the type checker only, too.
"""

import ast
from collections import Counter
from pathlib import Path

import spatialbench

PACKAGE = Path(spatialbench.__file__).parent
LAYERS = (
    "cli",
    "verify",
    "training",
    "report",
    "results",
    "pretrain",
    "methods",
    "config",
    "evaluation",
    "models",
    "data",
    "utils",
)
"""From top to bottom."""
SAME_NAME = {
    "data.py": "pretrain's batches, named by its pages; the command `data`",
    "doctor.py": "the command, and what it finds",
    "base.py": "the base class of methods, and that of evaluations",
    "controls.py": "making controls, and their table",
    "pages.py": "the commands on a page, and the reading of pages",
    "premises.py": "the measures, their table, and the command",
    "subsets.py": "the command, and its table",
}
"""File names that may stand in two folders, and why."""


def modules() -> dict[str, Path]:
    """Dotted name within the package -> file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: set[str]) -> set[str]:
    """Return the modules of the package that a file imports, wherever the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("spatialbench"):
            base = (node.module or "").removeprefix("spatialbench").removeprefix(".")
            for alias in node.names:
                name = f"{base}.{alias.name}".removeprefix(".")
                found.add(name if name in known else base)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("spatialbench."):
                    found.add(alias.name.removeprefix("spatialbench."))
    return found - {""}


def graph() -> dict[str, set[str]]:
    """Return module -> the modules that it imports."""
    files = modules()
    return {name: imports(path, set(files)) - {name} for name, path in files.items()}


def test_nothing_is_loose() -> None:
    assert [path.name for path in PACKAGE.glob("*.py")] == ["__init__.py"]
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set(LAYERS)


def violations() -> list[str]:
    """Return the imports against the order."""
    floor = {name: depth for depth, name in enumerate(LAYERS)}
    return [
        f"{name} imports {other}"
        for name, others in graph().items()
        for other in sorted(others)
        if name and floor[other.split(".")[0]] < floor[name.split(".")[0]]
    ]


def test_imports_go_downwards() -> None:
    assert violations() == []


def test_methods_do_not_import_one_another() -> None:
    papers = {n for n in modules() if n.startswith("methods.") and n.count(".") == 1}
    papers -= {"methods.base", "methods.connected", "methods.parts"}
    wrong = [f"{name} imports {o}" for name in papers for o in graph()[name] if o in papers]
    assert wrong == []


def test_no_cycles() -> None:
    edges = graph()
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a cycle: {' -> '.join([*path[path.index(name) :], name])}"
        if name in done:
            return
        for other in sorted(edges.get(name, ())):
            walk(other, (*path, name))
        done.add(name)

    for name in edges:
        walk(name, ())


def test_every_folder_says_its_rule() -> None:
    for folder in LAYERS:
        tree = ast.parse((PACKAGE / folder / "__init__.py").read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), f"spatialbench/{folder}/__init__.py does not say its rule"


def test_no_file_name_stands_twice_without_a_reason() -> None:
    counts = Counter(path.name for path in modules().values() if path.name != "__init__.py")
    assert {name for name, count in counts.items() if count > 1} == set(SAME_NAME)
