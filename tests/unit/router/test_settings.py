"""Settings of a gateway process."""

import pytest
from pydantic import ValidationError

from penumbra.router.settings import GatewaySettings


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("far:8000", "models.demo.variants.full.url: found"),
        ("http://me:secret@far", "models.demo.variants.full.url: found credentials"),
    ],
)
def test_a_variants_url_is_checked_at_the_start(url: str, words: str) -> None:
    model = {"baseline": "full", "variants": {"full": {"url": url}}}
    with pytest.raises(ValidationError) as caught:
        GatewaySettings.model_validate({"snapshot": {"epoch": 0, "models": {"demo": model}}})
    (problem,) = caught.value.errors()
    assert words in problem["msg"]
    assert "secret" not in problem["msg"]
