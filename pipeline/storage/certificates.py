"""Make clients that know only OpenSSL's variables trust the certificates that AWS clients trust.

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
    """Make this process trust a certificate file in addition to those of SSL_CERT_FILE or the system.

    In addition, since other clients read SSL_CERT_FILE too: the hub's, and the one for images over HTTP.
    Raises: StorageError.
    """
    if bundle:
        os.environ[VARIABLE] = _with(bundle, os.environ.get(VARIABLE, ""))


@cache
def _with(bundle: str, before: str) -> str:
    """Return a file that holds the certificates of both, which may be the one before. Raises: StorageError."""
    base = before if os.path.isfile(before) else _system()
    theirs = _read(bundle, "AWS_CA_BUNDLE, or ca_bundle of the AWS profile,")
    usual = _read(base, VARIABLE if base == before else "the system")
    if theirs in usual:
        return base
    everything = usual + b"\n" + theirs
    try:
        folder = caches.temporary("certificates")
        file = folder / f"{hashlib.sha256(everything).hexdigest()[:16]}.pem"
        scratch = folder / uuid4().hex
        scratch.write_bytes(everything)
        os.replace(scratch, file)
    except OSError as error:
        raise StorageError(
            f"Cannot write certificates into {caches.temporary_files()}: {error.strerror}; set TMPDIR to "
            "another folder."
        ) from error
    return str(file)


def _read(file: str, named_by: str) -> bytes:
    """Read a file of certificates. Raises: StorageError."""
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise StorageError(
            f"Cannot read the certificates in {file}, which {named_by} names: {error.strerror}."
        ) from error


def _system() -> str:
    """Return the file of the system's certificates, or the one that botocore ships."""
    paths = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
    found = (path for path in (ssl.get_default_verify_paths().cafile, *paths) if path and Path(path).is_file())
    return next(found, str(Path(botocore.__file__).with_name("cacert.pem")))
