"""The optional parts of the package, and the libraries that each brings"""

from typing import Final

EXTRAS: Final = {
    "cloud": ("ray", "sqlalchemy", "cryptography", "prometheus_client"),
    "edge": ("starlette", "uvicorn", "prompt_toolkit", "prometheus_client"),
    "documents": ("pypdf", "mammoth"),
    "postgres": ("psycopg",),
    "otlp": ("opentelemetry-proto",),
    "train": ("datasets", "matplotlib", "tensorboard"),
}
"""By the name of the extra; `pip install 'kvwire[cloud]'`."""


def extra_of(module: str | None) -> str | None:
    """The extra that brings a module, for instance "ray.serve"; None where it is of none."""
    top = (module or "").partition(".")[0]
    return next((extra for extra, names in EXTRAS.items() if top in names), None)
