"""The same empty cache, without a Hub, as where models are fetched."""

from tests.ops.models.conftest import cache, real_cache

__all__ = ["cache", "real_cache"]
