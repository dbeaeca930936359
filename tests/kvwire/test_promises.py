"""What the messages of the service can carry at all."""

from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

from kvwire.v1 import sharer_pb2 as pb


def fields_of(message: Descriptor, path: str = "") -> Iterator[tuple[str, FieldDescriptor]]:
    """Every field that a message can hold, at any depth."""
    for field in message.fields:
        name = f"{path}{field.name}"
        yield name, field
        if field.message_type is not None:
            yield from fields_of(field.message_type, f"{name}.")


def is_repeated(field: FieldDescriptor) -> bool:
    """Whether the field holds a list; every version of protobuf says so here."""
    message = DescriptorProto()
    field.containing_type.CopyToProto(message)
    return message.field[field.index].label == FieldDescriptorProto.LABEL_REPEATED


def test_a_search_answers_with_ids_and_numbers() -> None:
    found = {name: field.type for name, field in fields_of(pb.SearchResponse.DESCRIPTOR)}
    strings = {
        name
        for name, kind in found.items()
        if kind in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
    }
    assert strings == {"passages.document_id"}
    assert found.keys() == {"passages"} | {
        f"passages.{field}" for field in ("document_id", "passage", "score")
    }


def test_no_reply_of_share_has_a_field_for_text_or_token_ids() -> None:
    kinds = {FieldDescriptor.TYPE_STRING: set(), FieldDescriptor.TYPE_BYTES: set()}
    repeated = set()
    for name, field in fields_of(pb.ShareResponse.DESCRIPTOR):
        assert "text" not in name
        assert "token" not in name
        if field.type in kinds:
            kinds[field.type].add(name)
        if is_repeated(field):
            repeated.add(name)
    # There is no string; bytes are digests of what the edge knows (check_header, SliceAssembler), encoded numbers, and
    # what was drawn at random when a text was stored.
    assert kinds[FieldDescriptor.TYPE_STRING] == set()
    assert kinds[FieldDescriptor.TYPE_BYTES] == {
        "header.request_digest",
        "header.versions",
        "frame.data",
        "trailer.digest",
    }
    # Lists are of segments, which the edge works out by itself and compares, of the characters of its own text, and
    # of one version for each document that it names.
    runs = {f"header.segments.{field}" for field in ("kinds", "layers", "shape")}
    assert repeated == {"header.segments", "header.spans", "header.versions"} | runs


def test_a_description_names_models_bundles_and_codecs_only() -> None:
    strings = {n for n, f in fields_of(pb.DescribeResponse.DESCRIPTOR) if f.type == f.TYPE_STRING}
    models = {f"{where}.{part}" for where in ("sharer", "bundles.receiver") for part in ("name", "revision")}
    codecs = {
        f"{where}.{part}" for where in ("codecs", "bundles.codecs") for part in ("name", "parameters_hash")
    }
    assert strings == models | codecs | {"bundles.bundle_hash"}


def test_the_relay_alone_answers_with_text() -> None:
    service = pb.DESCRIPTOR.services_by_name["SharerService"]
    assert {method.name for method in service.methods} == {"Describe", "Search", "Share", "Relay"}
    with_text = {
        method.name
        for method in service.methods
        if any(name.split(".")[-1] == "text" for name, _ in fields_of(method.output_type))
    }
    assert with_text == {"Relay"}


def test_the_wire_has_no_word_for_a_section_of_the_edge() -> None:
    assert pb.Visibility.keys() == ["VISIBILITY_UNSPECIFIED", "VISIBILITY_SHARED", "VISIBILITY_CLOUD"]


def test_no_field_is_open_ended() -> None:
    for message in pb.DESCRIPTOR.message_types_by_name.values():
        assert not message.extension_ranges
        for _, field in fields_of(message):
            assert field.message_type is None or field.message_type.file.package == "kvwire.v1"
