"""The wire of KVWire: what edge and cloud must agree on, and nothing else.

Kept light on purpose: torch is imported by `kvwire.codec` alone, so a command line or a gateway starts fast.
"""

from typing import Final

PROTOCOL_VERSION: Final = 4
"""The one version of `kvwire.v1` this package speaks."""

__all__ = ["PROTOCOL_VERSION"]
