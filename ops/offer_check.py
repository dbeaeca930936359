"""What `kvwire doctor` and `kvwire smoke` look at of a cloud's offer: whether it fits an edge."""

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from ops.finding import Finding, State

if TYPE_CHECKING:
    from edge_node import EdgeConfig
    from fuser.bundle.bundle import Bundle
    from kvwire.messages import CodecRef
    from kvwire.segment import SliceKind

_DESCRIBE_S = 10.0


def offer_findings(config: "EdgeConfig", bundle: "Bundle | None") -> Iterator[Finding]:
    """Who answers where the cloud should be, whether it knows this edge's bundle, and whether the two fit."""
    from edge_node import Client

    with Client(config) as client:
        offer = client.describe(deadline_s=_DESCRIBE_S)
    yield Finding(State.GOOD, "cloud", f"{config.cloud.address} answers; Sharer {offer.sharer.name}")
    if bundle is None:
        return
    known = bundle.hash in {one.bundle_hash for one in offer.bundles}
    state, said = (State.GOOD, "is known there") if known else (State.BAD, "is not among the cloud's bundles")
    then = (
        ""
        if known
        else "use one bundle on both sides: copy the cloud's here, or name this one in its cloud.toml"
    )
    yield Finding(state, "cloud bundle", f"{bundle.hash[:12]} {said}", then)
    for one in offer.bundles:
        if one.bundle_hash == bundle.hash:
            yield from _same(config, bundle, one.kinds, {*offer.codecs, *one.codecs})


def _same(
    config: "EdgeConfig", bundle: "Bundle", kinds: "Collection[SliceKind]", codecs: "set[CodecRef]"
) -> Iterator[Finding]:
    """Whether the cloud makes the configured kind of slice, with codecs of the same parameters."""
    from kvwire.codec import CodecRegistry

    wanted, offered = config.share.kind or bundle.config.usual, ", ".join(sorted(kinds)) or "none"
    if wanted in kinds:
        yield Finding(State.GOOD, "cloud kinds", f"{offered}: {wanted} is configured here")
    else:
        then = "change [share] kind here, or have the cloud's [export] allow it"
        yield Finding(
            State.BAD, "cloud kinds", f"{wanted} slices are configured here, it lets out {offered}", then
        )
    own = CodecRegistry(bundle.codecs()).refs()
    other = [codec.name for codec in own if codec not in codecs]
    if other:
        then = "install one version of kvwire on both sides"
        yield Finding(
            State.BAD, "cloud codecs", f"other parameters or unknown there: {', '.join(other)}", then
        )
    else:
        yield Finding(State.GOOD, "cloud codecs", f"the same {len(own)} on both sides")
