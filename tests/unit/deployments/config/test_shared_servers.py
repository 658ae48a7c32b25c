"""Two variants of a model at one server are refused, however its address is spelled."""

from pathlib import Path

import pytest

from penumbra.deployments.config.loader import load, load_in_force
from penumbra.deployments.config.shared_servers import server_of, shared_server_problems
from penumbra.deployments.errors import ConfigInvalid

CONFIG = """
models:
  demo:
    baseline: full
    variants: {full: {url: "http://far:9000/base"}, int8: {url: "%s"}}
"""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://far:9000", "http://far:9000/"),
        ("http://far:9000", "http://far:9000/v1"),
        ("http://far:9000", "http://far:9000/v1/"),
        ("http://far", "http://far:80"),
        ("https://far", "https://far:443/v1"),
        ("http://far:9000", "http://FAR:9000"),
        ("http://far:9000", "http://far.:9000"),
        ("http://far:9000", "HTTP://far:9000"),
        ("http://far:9000", "https://far:9000"),
        ("http://far:9000/base", "http://far:9000/base/v1"),
        ("http://localhost:9000", "http://127.0.0.1:9000"),
        ("http://[::1]:9000", "http://[0:0:0:0:0:0:0:1]:9000"),
    ],
)
def test_spellings_of_one_server_are_one(one: str, other: str) -> None:
    assert server_of(one) == server_of(other)
    [found] = shared_server_problems({"full": one, "int8": other})
    assert found == (
        f'variants.int8.url: found "{other}", wanted another server than that of full:'
        " a build would be compared with itself"
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://far:9000", "http://far:9001"),
        ("http://far:9000", "http://near:9000"),
        ("http://far:9000", "http://far:9000/base"),
        ("http://far:9000/full", "http://far:9000/int8"),
        ("http://far:9000/Base", "http://far:9000/base"),
        ("http://far", "https://far"),
        ("http://127.0.0.1:9000", "http://127.0.0.2:9000"),
    ],
)
def test_two_servers_are_two(one: str, other: str) -> None:
    assert list(shared_server_problems({"full": one, "int8": other})) == []


def test_a_third_variant_names_the_first_of_its_server() -> None:
    urls = {"full": "http://far", "int8": "http://near", "int4": "http://far/v1"}
    [found] = shared_server_problems(urls)
    assert "variants.int4.url" in found
    assert "that of full" in found


def write(folder: Path, url: str) -> Path:
    file = folder / "penumbra.yaml"
    file.write_text(CONFIG % url)
    return file


def test_a_file_with_two_variants_at_one_server_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "http://FAR:9000/base/v1/")
    with pytest.raises(ConfigInvalid) as caught:
        load(file)
    assert caught.value.message == (
        f'{file}: models.demo.variants.int8.url: found "http://FAR:9000/base/v1/", wanted another'
        " server than that of full: a build would be compared with itself"
    )


def test_two_models_may_share_a_server(tmp_path: Path) -> None:
    # As one engine with adapters serves them.
    file = write(tmp_path, "http://near:9000")
    file.write_text(
        file.read_text() + file.read_text().replace("models:\n", "").replace("demo", "d2")
    )
    assert set(load(file).models) == {"demo", "d2"}


def test_what_runs_already_starts_again(tmp_path: Path) -> None:
    file = tmp_path / "penumbra.yaml"
    file.write_text(CONFIG % "http://far:9000/base")
    assert list(load_in_force(file).models["demo"].variants) == ["full", "int8"]
