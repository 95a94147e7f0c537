"""Counts of the package's structure against their limits: ``python -m tools.structure``.

Exits with 1 where a limit is exceeded. Files over 300 lines must have a reason in ``LONG``.
"""

import ast
import sys
from pathlib import Path

from tests import test_layers

ROOT = Path(__file__).resolve().parents[1]
PACKAGE, TESTS = ROOT / "spatialbench", ROOT / "tests"
SOURCES = (".py", ".js", ".css", ".html", ".j2")
LIMITS = {"package lines": 24_500, "test lines": 17_500, "long functions, percent": 1.0}
FUNCTION, FILE = 40, 300
LONG = {
    "data/rooms/kinds.py": "one function for each of 36 object kinds, and the line that lists it",
}
"""Files over 300 lines, and why each is one thing."""


def lines_of(folder: Path, endings: tuple[str, ...]) -> dict[str, int]:
    """Return file -> lines."""
    files = (path for path in sorted(folder.rglob("*")) if path.suffix in endings)
    return {
        path.relative_to(folder).as_posix(): len(path.read_text("utf-8").splitlines())
        for path in files
    }


def functions() -> dict[str, int]:
    """Return function of the package -> lines."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                where = f"{path.relative_to(PACKAGE).as_posix()}:{node.lineno} {node.name}"
                found[where] = (node.end_lineno or node.lineno) - node.lineno + 1
    return found


def cycles() -> int:
    """Return the number of import cycles, 1 at most."""
    try:
        test_layers.test_no_cycles()
    except AssertionError:
        return 1
    return 0


def main() -> int:
    """Print the counts; return 1 where a limit is exceeded."""
    package, tests = lines_of(PACKAGE, SOURCES), lines_of(TESTS, (".py",))
    sizes = functions()
    long_functions = [name for name, size in sizes.items() if size > FUNCTION]
    long_files = [name for name, size in package.items() if size > FILE and name not in LONG]
    counts = {
        "package lines": sum(package.values()),
        "test lines": sum(tests.values()),
        "long functions, percent": round(100 * len(long_functions) / len(sizes), 2),
        "loose modules": len(list(PACKAGE.glob("*.py"))) - 1,
        "cycles": cycles(),
        "layer violations": len(test_layers.violations()),
        "long files without a reason": len(long_files),
    }
    for name, count in counts.items():
        limit = LIMITS.get(name, 0)
        print(f"{name:<30} {count:>8}   limit {limit}{'   EXCEEDED' if count > limit else ''}")
    for name in [*long_files, *long_functions]:
        print(f"  {name}: {package.get(name) or sizes.get(name)} lines")
    return int(any(count > LIMITS.get(name, 0) for name, count in counts.items()))


if __name__ == "__main__":
    sys.exit(main())
