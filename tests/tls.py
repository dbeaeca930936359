"""Mutual TLS for a client of the tests' own, which trusts the tests' authority and reads no host name's certificate."""

import grpc

from kvwire.identity import TlsFiles


def channel_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """Only the roots in `files` are trusted."""
    certificate, key, roots = files.read()
    return grpc.ssl_channel_credentials(
        root_certificates=roots, private_key=key, certificate_chain=certificate
    )
