"""A codec's round trip: what arrives of tensors, without a wire between."""

import torch

from kvwire.codec.base import Codec
from kvwire.segment import SegmentSpec


def roundtrip(codec: Codec, tensors: torch.Tensor, spec: SegmentSpec) -> tuple[torch.Tensor, list[int]]:
    """Tensors as they arrive by a codec, each encoded for itself, and the payload bytes of each.

    The gradient passes straight through: that of what arrived is that of what left.

    Args:
        tensors: (batch, *spec.shape) in the dtype of `spec`, on any device.

    Raises:
        Unsupported: the codec has no basis for such a segment.
    """
    sent = tensors.detach().contiguous()
    payloads = [codec.encode(tensor, spec) for tensor in sent]
    decoded = [codec.decode(payload, spec, tensors.device) for payload in payloads]
    arrived = torch.stack(decoded) if decoded else sent
    if tensors.requires_grad:
        arrived = arrived + (tensors - sent)
    return arrived, [len(payload) for payload in payloads]
