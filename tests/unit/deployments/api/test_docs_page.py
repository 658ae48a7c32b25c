"""The page of the admin API: every route of it, safe to open, and nothing from elsewhere."""

from pathlib import Path

from penumbra.deployments.api.docs_page import docs_page
from tests.support.control_plane import control_plane
from tests.unit.deployments.api.test_app import Api


async def test_the_page_lists_every_route(tmp_path: Path) -> None:
    async with control_plane(tmp_path) as plane:
        client = Api(plane).client
        document = (await client.get("/openapi.json")).json()
        answer = await client.get("/docs")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert len(document["paths"]) > 10
    for path, methods in document["paths"].items():
        for method in methods:
            assert f"<code>{method.upper()} {path}</code>" in answer.text
    assert "<script" not in answer.text
    assert "//" not in answer.text.replace("<!doctype html>", "")


def test_texts_are_written_as_texts() -> None:
    operation = {"description": "<b>&", "parameters": [{"in": "query", "name": "<i>"}]}
    page = docs_page(
        {"info": {"title": "<T>", "version": "1"}, "paths": {"/<a>": {"get": operation}}}
    )
    for text in ("<b>", "<i>", "<T>", "<a>"):
        assert text not in page
    assert "&lt;b&gt;&amp;" in page
