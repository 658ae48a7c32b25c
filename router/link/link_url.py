"""WebSocket addresses of the links at a control process."""

from penumbra.router.link.messages import PATH


def link_url(url: str, path: str = PATH) -> str:
    """Make the WebSocket address of the link from a base URL of the control process.

    Raises:
        ValueError: The scheme is none of http, https, ws, wss.
    """
    scheme, separator, rest = url.partition("://")
    schemes = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
    if not separator or scheme not in schemes:
        raise ValueError(
            f'control_url: found "{url}", wanted http://HOST:PORT or https://HOST:PORT'
        )
    return f"{schemes[scheme]}://{rest.rstrip('/')}{path}"
