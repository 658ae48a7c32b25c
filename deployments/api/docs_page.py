"""The page `/docs` of the admin API: its routes for people, made of the OpenAPI document.

It loads nothing from elsewhere and runs no script.
"""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
td, th { border-bottom: 1px solid #8888; padding: .3rem .6rem; text-align: left;
  vertical-align: top }
code { font-size: .9em }
"""
HEADERS = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}


def docs_page(document: Mapping[str, Any]) -> str:
    """Make the page.

    Args:
        document: The OpenAPI document.
    """
    about = document["info"]
    title = escape(f"{about['title']} {about['version']}")
    return "".join(
        (
            "<!doctype html><html lang=en><meta charset=utf-8>",
            f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>",
            f"<p>{escape(about.get('summary', ''))} Requests need a token:"
            " <code>authorization: Bearer TOKEN</code>. The full description is"
            " <a href=openapi.json>openapi.json</a>.</p>",
            *_sections(document["paths"]),
        )
    )


def _sections(paths: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    sections: dict[str, list[str]] = {}
    for path, methods in paths.items():
        for method, operation in methods.items():
            section = (operation.get("tags") or ["other"])[0]
            sections.setdefault(section, []).append(_row(method, path, operation))
    for name, rows in sections.items():
        yield f"<h2>{escape(name)}</h2><table><tr><th>request<th>what it does<th>fields</tr>"
        yield from rows
        yield "</table>"


def _row(method: str, path: str, operation: Mapping[str, Any]) -> str:
    text = operation.get("description") or operation.get("summary") or ""
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    schema = body.get("schema", {}).get("$ref", "").rpartition("/")[2]
    queries = [each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"]
    fields = [f"?{name}" for name in queries] + ([schema] if schema else [])
    request = f"<code>{method.upper()} {escape(path)}</code>"
    return f"<tr><td>{request}<td>{escape(text)}<td>{escape(', '.join(fields))}</tr>"
