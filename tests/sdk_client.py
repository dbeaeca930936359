"""What a client of the SDK writes: never run, but `make check` holds it to the types of the packages' doors."""

from typing import assert_type

from edge_node import Ask, Assistant, AsyncAssistant, AsyncClient, Client, EdgeConfig
from fuser import Bundle, Receiver, load_pair
from kvwire import KvwireError, Plan, Role, Section, SliceKind, Visibility


def ask(config: EdgeConfig, question: str) -> str:
    with Assistant.from_config(config) as assistant:
        answer = assistant.ask(
            Ask(question, document="note-1", plan=Plan(codec="int8", positions=8), stop=[";"])
        )
        answer = assistant.ask(question, document="note-1")
    return answer.text if answer.answered else answer.reason or ""


async def said(assistant: AsyncAssistant, question: str) -> str:
    async with assistant.stream(Ask(question, choices=["one", "two"], kind=SliceKind.SHARED)) as pieces:
        return "".join([piece async for piece in pieces])


async def slice_bytes(config: EdgeConfig, bundle: Bundle) -> int:
    sections = [Section(Role.QUESTION, Visibility.SHARED, text="Who?")]
    async with AsyncClient(config) as client:
        stream = client.share(sections, bundle, kind=SliceKind.SHARED)
        try:
            async for part in stream:
                print(part)
        except KvwireError as error:
            print(error.detail)
        return stream.payload_bytes


def offer(config: EdgeConfig) -> str:
    with Client(config) as client:
        return client.describe(deadline_s=3.0).sharer.name


sharer, receiver = load_pair("qwen2.5-coder-0.5b--smollm2-135m", device="auto", dtype="float32")
assert_type(receiver, Receiver)
