"""The three PEM files of a node: there, readable, fitting together, and valid for how long"""

import datetime
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_node.config import TlsConfig
from fuser.config import BadConfig
from ops.finding import Finding, State

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

SOON: Final = datetime.timedelta(days=7)
NOW: Final = datetime.timedelta(days=3)
_MAKE: Final = (
    "`kvwire certs` makes a certificate and its key (--renew), or take them from your own authority"
)


def tls_findings(files: Mapping[str, str], uri_start: str) -> Iterator[Finding]:
    """About `files`: the paths of `certificate`, `key` and `authority`. `uri_start`: of the identity to prove."""
    try:
        TlsConfig(**files).load()
    except BadConfig as error:
        what, _, found = str(error).partition(": ")
        yield Finding(State.BAD, what, found, _MAKE)
        return
    try:
        yield from _dated(files, uri_start)
    except ModuleNotFoundError:
        found = "certificate, key and authority can be read and fit; who and how long is not looked at here"
        yield Finding(State.NOTE, "tls", found, "pip install cryptography")


def _dated(files: Mapping[str, str], uri_start: str) -> Iterator[Finding]:
    from cryptography import x509

    roots = x509.load_pem_x509_certificates(Path(files["authority"]).read_bytes())
    own = x509.load_pem_x509_certificates(Path(files["certificate"]).read_bytes())[0]
    try:
        names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        uris = []  # the gateway too has whoever wears it for nobody
    who = ", ".join(uris) or "nobody"
    if not (len(uris) == 1 and uris[0].startswith(uri_start)):
        then = f"take a certificate whose one URI begins with {uri_start}; {_MAKE}"
        yield Finding(State.BAD, "tls.certificate", f"{files['certificate']} is for {who}", then)
    else:
        yield _until("tls.certificate", own, f"{files['certificate']} is for {who}")
    for root in roots:
        yield _until("tls.authority", root, files["authority"])
    if not any(_issued(own, root) for root in roots):
        found = f"{files['authority']} did not issue {files['certificate']}"
        then = "right only where the other side has another authority; else name the same one on both"
        yield Finding(State.NOTE, "tls.authority", found, then)


def _issued(own: "Certificate", root: "Certificate") -> bool:
    try:
        own.verify_directly_issued_by(root)
    except Exception:  # what it raises depends on the kind of key
        return False
    return True


def _until(what: str, certificate: "Certificate", found: str) -> Finding:
    now = datetime.datetime.now(datetime.UTC)
    ends, begins = certificate.not_valid_after_utc, certificate.not_valid_before_utc
    if begins > now:
        then = "look at this machine's clock, or wait"
        return Finding(State.BAD, what, f"{found}, valid from {begins:%Y-%m-%d %H:%M} UTC", then)
    if ends <= now:
        return Finding(State.BAD, what, f"{found}, expired on {ends:%Y-%m-%d}", f"renew it: {_MAKE}")
    state, then = State.GOOD, ""
    if ends - now < SOON:
        state, then = State.NOTE, f"renew it soon: {_MAKE}"
    if ends - now < NOW:
        state, then = State.BAD, f"renew it now: {_MAKE}"
    return Finding(state, what, f"{found}, until {ends:%Y-%m-%d} ({(ends - now).days} days)", then)
