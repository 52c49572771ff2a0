"""The certificates that the environment has AWS clients trust, for clients that know only OpenSSL's own variables.

delta-rs and obstore read SSL_CERT_FILE when they open a store, and nothing else.
"""

import hashlib
import os
import ssl
from functools import cache
from pathlib import Path
from uuid import uuid4

import botocore

from pipeline.errors import StorageError
from pipeline.storage import caches

VARIABLE = "SSL_CERT_FILE"


def trust(bundle: str | None) -> None:
    """Have this process trust a file of certificates besides those of SSL_CERT_FILE, or of the system.

    Besides, since the variable is read by every client: the hub's, and that of images over HTTP.
    Raises: StorageError.
    """
    if not bundle:
        return
    try:
        os.environ[VARIABLE] = _with(bundle, os.environ.get(VARIABLE, ""))
    except OSError as error:
        raise StorageError(
            f"The certificates of AWS_CA_BUNDLE, {bundle}, cannot be used: {error.strerror}."
        ) from error


@cache
def _with(bundle: str, before: str) -> str:
    """A file that has the certificates of both, which may be the one before."""
    base = before if os.path.isfile(before) else _system()
    usual, theirs = Path(base).read_bytes(), Path(bundle).read_bytes()
    if theirs in usual:
        return base
    everything = usual + b"\n" + theirs
    folder = caches.temporary("certificates")
    file = folder / f"{hashlib.sha256(everything).hexdigest()[:16]}.pem"
    scratch = folder / uuid4().hex
    scratch.write_bytes(everything)
    os.replace(scratch, file)
    return str(file)


def _system() -> str:
    """The system's certificates, else those that AWS's own client comes with."""
    paths = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
    found = (path for path in (ssl.get_default_verify_paths().cafile, *paths) if path and Path(path).is_file())
    return next(found, str(Path(botocore.__file__).with_name("cacert.pem")))
