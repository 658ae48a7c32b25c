"""The structure is as import-linter's contracts say, and the contracts say all there is to say."""

import pytest
from grimp import ImportGraph

from tests.support import structure


@pytest.fixture(scope="module")
def imports() -> ImportGraph:
    return structure.graph()


def test_no_modules_import_each_other_in_a_loop(imports: ImportGraph) -> None:
    assert structure.circles(imports) == []


def test_no_import_runs_against_the_layers(imports: ImportGraph) -> None:
    assert structure.against_layers(imports) == []


@pytest.mark.parametrize("package", ["serve", "deployments", "router", "monitoring"])
def test_every_package_has_a_layers_contract_that_names_all_it_holds(
    imports: ImportGraph, package: str
) -> None:
    container = f"penumbra.{package}"
    named = {name for row in structure.layers()[container] for name in row}
    held = {
        module.removeprefix(f"{container}.").split(".")[0]
        for module in imports.modules
        if module.startswith(f"{container}.")
    }
    assert named == held


def test_modules_that_claim_purity_are_those_of_the_contract(imports: ImportGraph) -> None:
    claimed, held = structure.pure_by_claim(imports), structure.pure_by_contract(imports)
    assert sorted(claimed - held) == [], "say they are pure, and the contract does not name them"
    assert sorted(held - claimed) == [], "named by the contract, and do not say that they are pure"


def test_a_circle_is_found() -> None:
    graph = ImportGraph()
    for importer, imported in (("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")):
        graph.add_import(importer=importer, imported=imported)
    (loop,) = structure.circles(graph)
    assert set(loop) == {"a", "b", "c"}
    assert len(loop) == 4


def test_an_import_against_the_layers_is_found() -> None:
    graph = ImportGraph()
    graph.add_import(importer="penumbra.router.flags.x", imported="penumbra.router.gateway.y")
    graph.add_import(importer="penumbra.router.gateway.y", imported="penumbra.router.flags.z")
    assert structure.against_layers(graph) == [
        ("penumbra.router.flags.x", "penumbra.router.gateway.y")
    ]
