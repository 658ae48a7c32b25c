"""TLS of a client: the server's certificate is verified against its host name."""

import ssl


def client_context(
    ca_file: str | None = None, shown: tuple[str, str] | None = None
) -> ssl.SSLContext:
    """Make the TLS settings of a client.

    Args:
        ca_file: Certificates that the server's must be signed by, in place of the system's.
        shown: Files of the certificate that the client shows, and of its key.

    Raises:
        ValueError: A file cannot be read, or does not hold what it should.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise ValueError(
            f'ca_file: found "{ca_file}" ({error.strerror}), wanted certificates in PEM form'
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if shown is not None:
        try:
            context.load_cert_chain(*shown, password=no_password)
        except (OSError, ValueError) as error:
            raise ValueError(unusable_pair(*shown, error)) from error
    return context


def unusable_pair(certificate: object, key: object, error: Exception) -> str:
    """Describe the reason why two files are no certificate with its key, and what would be."""
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return (
        f"found {certificate} and {key} ({reason}), wanted a certificate and its private key"
        " without a password, both in PEM form"
    )


def no_password() -> str:
    """Refuse to ask for the password of a key; called by the TLS library.

    Raises:
        ValueError: Always.
    """
    raise ValueError("the key has a password")
