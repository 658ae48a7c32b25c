"""TLS to an https upstream: its certificate is verified against its host name."""

import ssl


def client_context(ca_file: str | None = None) -> ssl.SSLContext:
    """Make the TLS settings of a client.

    Args:
        ca_file: Certificates that the server's must be signed by, in place of the system's.

    Raises:
        ValueError: The file cannot be read, or holds no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise ValueError(
            f'ca_file: found "{ca_file}" ({error.strerror}), wanted certificates in PEM form'
        ) from error
    context.set_alpn_protocols(["http/1.1"])
    return context
