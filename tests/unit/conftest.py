"""Unit tests stay in their process: a network socket or `ray.init` fails them."""

from collections.abc import Iterator

import pytest

from tests.support.isolation import isolated


@pytest.fixture(autouse=True)
def _isolation() -> Iterator[None]:
    with isolated():
        yield
