"""Measures the structure of the package: modules a folder, circles, imports against the layers.

`python -m tests.support.structure` prints it. The layers are those of the contracts in
pyproject.toml, so that the figures and `make imports` cannot disagree.
"""

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[2]
PACKAGE = "penumbra"
PURITY = "Pure modules import no clock, randomness, event loop, files, logging or network"
_CLAIM = re.compile(r"\bpure\b", re.IGNORECASE)

Import = tuple[str, str]
"""(importer, imported)."""


def contracts() -> list[dict[str, object]]:
    """The contracts of import-linter."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found: list[dict[str, object]] = project["tool"]["importlinter"]["contracts"]
    return found


def graph() -> grimp.ImportGraph:
    """Every import of the package, those for type checkers included."""
    return grimp.build_graph(PACKAGE)


def circles(imports: grimp.ImportGraph) -> list[list[str]]:
    """Loops of modules that import each other; each is cut at one import before the next search."""
    needs = {m: imports.find_modules_directly_imported_by(m) for m in sorted(imports.modules)}
    found: list[list[str]] = []
    while True:
        try:
            TopologicalSorter(needs).prepare()
        except CycleError as error:
            # The loop as graphlib has it: each module is imported by the one behind it.
            loop: list[str] = error.args[1]
            needs[loop[1]] = needs[loop[1]] - {loop[0]}
            found.append(loop[::-1])
        else:
            return found


def layers() -> dict[str, list[list[str]]]:
    """Container -> its layers, top first; those that are beside each other share a list."""
    found: dict[str, list[list[str]]] = {}
    for contract in contracts():
        if contract["type"] == "layers":
            named = contract["layers"]
            assert isinstance(named, list)
            for container in contract.get("containers", [PACKAGE]):  # type: ignore[attr-defined]
                rows = [re.split(r"\s*[|:]\s*", layer) for layer in named]
                prefix = f"{container}."
                found[container] = [
                    [name.strip("() ").removeprefix(prefix) for name in row] for row in rows
                ]
    return found


def against_layers(imports: grimp.ImportGraph) -> list[Import]:
    """Imports that run from a lower layer to a higher one, or between neighbours of a layer."""
    return [
        (importer, imported)
        for container, rows in layers().items()
        for importer, imported in _imports_within(imports, container)
        if not _is_downwards(rows, container, importer, imported)
    ]


def _imports_within(imports: grimp.ImportGraph, container: str) -> Iterator[Import]:
    for importer in sorted(imports.modules):
        if importer.startswith(f"{container}."):
            for imported in sorted(imports.find_modules_directly_imported_by(importer)):
                if imported.startswith(f"{container}."):
                    yield importer, imported


def _is_downwards(rows: list[list[str]], container: str, importer: str, imported: str) -> bool:
    place = {name: number for number, row in enumerate(rows) for name in row}
    above, below = (
        name.removeprefix(f"{container}.").split(".")[0] for name in (importer, imported)
    )
    if above == below or above not in place or below not in place:
        return above == below or (above not in place and below not in place)
    return place[above] < place[below]


def pure_by_contract(imports: grimp.ImportGraph) -> set[str]:
    """Modules that the purity contract names, those of its packages included."""
    (contract,) = (contract for contract in contracts() if contract["name"] == PURITY)
    named = contract["source_modules"]
    assert isinstance(named, list)
    return {
        module
        for module in imports.modules
        if any(module == name or module.startswith(f"{name}.") for name in named)
    }


def pure_by_claim(imports: grimp.ImportGraph) -> set[str]:
    """Modules whose docstring, or whose package's, says that they are pure."""
    claims = {module for module in imports.modules if _claims_purity(module)}
    return {
        module
        for module in imports.modules
        if any(module == claim or _is_package_of(claim, module) for claim in claims)
    }


def _is_package_of(claim: str, module: str) -> bool:
    return _file(claim).name == "__init__.py" and module.startswith(f"{claim}.")


def _claims_purity(module: str) -> bool:
    tree = ast.parse(_file(module).read_text(encoding="utf-8"))
    return bool(_CLAIM.search(ast.get_docstring(tree) or ""))


def _file(module: str) -> Path:
    path = ROOT / "src" / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def modules_by_folder(imports: grimp.ImportGraph) -> Counter[str]:
    """Folder -> modules that lie in it, `__init__` left out."""
    files = (_file(module) for module in imports.modules)
    folders = (
        file.parent.relative_to(ROOT / "src" / PACKAGE) for file in files if file.stem != "__init__"
    )
    return Counter(str(folder) for folder in folders)


def main() -> None:
    """Print the figures."""
    imports = graph()
    for folder, count in sorted(modules_by_folder(imports).items()):
        print(f"{count:4} {folder}")
    print(f"circles of modules: {len(circles(imports))}", *circles(imports), sep="\n  ")
    upwards = against_layers(imports)
    print(f"imports against the layers: {len(upwards)}", *map(" -> ".join, upwards), sep="\n  ")
    pure = pure_by_contract(imports)
    print(f"pure modules: {len(pure)} of {len(imports.modules)}")


if __name__ == "__main__":
    main()
