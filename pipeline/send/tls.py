"""TLS as a client: always verified; the system's authorities, and a company's own beside them.

Also why a server was not trusted, in one word. Knows no HTTP and no configuration.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from pipeline.errors import ConfigError

# OpenSSL's X509_V_ERR_* (docs.openssl.org/master/man3/X509_STORE_CTX_get_error).
_WORDS = {
    9: "certificate_not_yet_valid",
    10: "certificate_expired",
    62: "certificate_hostname",  # it is somebody else's
    64: "certificate_hostname",  # the same, by IP address
}


def client_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """Certificates and host names are verified, TLS 1.2 is the least, HTTP/1.1 what is spoken.

    ca_file: PEM certificates of authorities to trust too. Raises ConfigError. Reads files.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(("http/1.1",))
    if ca_file is not None:
        remedy = "Give `http.ca_file` a file of certificates (PEM) that this user may read."
        try:
            context.load_verify_locations(cafile=ca_file)
        except ssl.SSLError as error:  # an OSError too
            raise ConfigError(f"{ca_file} holds no certificate. {remedy}") from error
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ConfigError(f"{ca_file} can't be read: {reason}. {remedy}") from error
    return context


def word(error: BaseException | None) -> str:
    """Why a handshake failed: `certificate_...` when the server was not trusted, else `tls`."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _WORDS.get(error.verify_code, "certificate_untrusted")
    return "tls"
