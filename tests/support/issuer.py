"""An issuer of tokens of OpenID Connect, in the test's process."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

AUDIENCE = "penumbra"
Answer = Callable[[httpx.Request], httpx.Response]


class Issuer:
    """Signs tokens, and tells its public keys.

    Args:
        url: Its URL.
    """

    def __init__(self, url: str = "https://login.test/realm") -> None:
        self.url = url
        self.keys: dict[str, Any] = {}
        self.add_key("first")
        self.fetches = 0
        self.problem: Callable[[], httpx.Response] | None = None
        """Makes its answers while it is broken."""
        self.more: list[dict[str, Any]] = []
        """Further entries of its key set."""

    def add_key(self, key_id: str, *, is_elliptic: bool = False) -> None:
        self.keys[key_id] = (
            ec.generate_private_key(ec.SECP256R1())
            if is_elliptic
            else rsa.generate_private_key(public_exponent=65537, key_size=2048)
        )

    def key_set(self) -> list[dict[str, Any]]:
        found = []
        for key_id, key in self.keys.items():
            kind = jwt.algorithms.RSAAlgorithm
            if isinstance(key, ec.EllipticCurvePrivateKey):
                kind = jwt.algorithms.ECAlgorithm
            found.append(json.loads(kind.to_jwk(key.public_key())) | {"kid": key_id, "use": "sig"})
        return [*found, *self.more]

    def answer(self, path: str) -> httpx.Response:
        """Answer a request for one of its documents."""
        self.fetches += 1
        if self.problem is not None:
            return self.problem()
        if path.endswith("/.well-known/openid-configuration"):
            document: dict[str, Any] = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        else:
            document = {"keys": self.key_set()}
        return httpx.Response(200, json=document)

    def token(self, now: float, key_id: str = "first", **claims: Any) -> str:
        """A token of alice for an hour; a claim of None is left out."""
        told = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "alice",
            "exp": now + 3600,
            "roles": ["ops"],
            **claims,
        }
        told = {name: value for name, value in told.items() if value is not None}
        key = self.keys[key_id]
        algorithm = "ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "RS256"
        return jwt.encode(told, key, algorithm, headers={"kid": key_id})


class IssuerServer:
    """An issuer on a port of this machine."""

    def __init__(self) -> None:
        issuer = Issuer()
        self.issuer = issuer

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = issuer.answer(self.path)
                self.send_response(answer.status_code)
                self.send_header("content-length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        issuer.url = f"http://127.0.0.1:{self._server.server_port}/realm"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
