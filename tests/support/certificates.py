"""Certificates of a test: an authority, and a server that it vouches for."""

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest


class Authority:
    """Signs the certificates of servers and clients.

    Args:
        folder: Where its files lie.
    """

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("needs openssl")
        self._folder = folder
        self.ca_file = folder / "ca.pem"
        self._key = folder / "ca.key"
        self._run(
            "req", "-x509", "-subj", "/CN=authority", *_NEW_KEY, self._key, "-out", self.ca_file
        )

    def server(self, *names: str) -> ssl.SSLContext:
        """Settings of a server with these names, written `DNS:name` or `IP:address`."""
        certificate, key = self.sign("server", *names)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        return context

    def sign(self, name: str, *names: str) -> tuple[Path, Path]:
        """Files of a new certificate with these names, and of its key: NAME.pem, NAME.key."""
        key, request, certificate = (
            self._folder / f"{name}.{end}" for end in ("key", "csr", "pem")
        )
        extension = self._folder / f"{name}.ext"
        extension.write_text(f"subjectAltName={','.join(names)}\n")
        self._run("req", "-subj", f"/CN={name}", *_NEW_KEY, key, "-out", request)
        self._run(
            "x509", "-req", "-in", request, "-CA", self.ca_file, "-CAkey", self._key,
            "-CAcreateserial", "-extfile", extension, "-out", certificate,
        )  # fmt: skip
        return certificate, key

    def client_context(self, *shown: Path) -> ssl.SSLContext:
        """Settings of a client that trusts it, and shows this certificate with its key, if any."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        if shown:
            context.load_cert_chain(*shown)
        return context

    def _run(self, *arguments: str | Path) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=30)


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout")
