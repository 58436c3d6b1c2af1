"""Print the shape of Python source trees: ``python tools/stats.py src/lamina``.

Sources are parsed, never imported. Public names are classes, functions and methods without a
leading underscore.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

LONG_FILE = 300
LONG_FUNCTION = 60

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One parsed file."""

    path: Path
    lines: int
    tree: ast.Module

    @classmethod
    def read(cls, path: Path) -> "Module":
        """Parse a file."""
        text = path.read_text(encoding="utf-8")
        return cls(path, len(text.splitlines()), ast.parse(text, str(path)))

    def functions(self) -> list[Function]:
        """Return every function, nested ones included."""
        return [node for node in ast.walk(self.tree) if isinstance(node, Function)]

    def public(self) -> Iterator[Function | ast.ClassDef]:
        """Yield the public classes, functions and methods."""
        bodies = [self.tree.body]
        while bodies:
            for node in bodies.pop():
                if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
                    yield node
                    if isinstance(node, ast.ClassDef):
                        bodies.append(node.body)

    def prints(self) -> int:
        """Count calls of ``print``."""
        calls = (node.func for node in ast.walk(self.tree) if isinstance(node, ast.Call))
        return sum(isinstance(func, ast.Name) and func.id == "print" for func in calls)


def parameters(function: Function) -> list[ast.arg]:
    """Return a function's parameters, ``self`` and ``cls`` aside."""
    args = function.args
    named = [*args.posonlyargs, *args.args, *args.kwonlyargs]
    starred = [arg for arg in (args.vararg, args.kwarg) if arg]
    return [arg for arg in named if arg.arg not in ("self", "cls")] + starred


def measure(folder: Path) -> dict[str, str]:
    """Return what there is to say about the Python files below ``folder``, as text by title."""
    modules = [Module.read(path) for path in sorted(folder.rglob("*.py"))]
    modules = [module for module in modules if module.lines]
    if not modules:
        sys.exit(f"{folder}: holds no Python source")
    sizes = [module.lines for module in modules]
    longest = max(modules, key=lambda module: module.lines)
    public = [node for module in modules for node in module.public()]
    functions = [function for module in modules for function in module.functions()]
    lengths = [(f.end_lineno or f.lineno) - f.lineno + 1 for f in functions]
    given = [parameter for function in functions for parameter in parameters(function)]
    return {
        "files": str(len(modules)),
        "lines": f"{sum(sizes):,}",
        "lines of the median file": f"{median(sizes):.0f}",
        f"files of at most {LONG_FILE} lines": share(size <= LONG_FILE for size in sizes),
        "longest file": f"{longest.path.relative_to(folder)}, {longest.lines}",
        "public names documented": share(ast.get_docstring(node) is not None for node in public),
        "parameters annotated": share(parameter.annotation is not None for parameter in given),
        "lines of the median function": f"{median(lengths or [0]):.0f}",
        f"functions over {LONG_FUNCTION} lines": str(sum(n > LONG_FUNCTION for n in lengths)),
        "calls of print": str(sum(module.prints() for module in modules)),
    }


def share(hits: Iterator[bool]) -> str:
    """Return the share of true values, such as ``"95% (19 of 20)"``."""
    found = list(hits)
    return f"{sum(found) / max(1, len(found)):.0%} ({sum(found)} of {len(found)})"


def main(folders: list[str]) -> None:
    """Print one column per folder."""
    columns = {folder: measure(Path(folder)) for folder in folders}
    table = Table("", *columns)
    for title in next(iter(columns.values())):
        table.add_row(title, *(column[title] for column in columns.values()))
    Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1:] or ["src/lamina"])
