"""A clinic's assistant: one question over several private records, beside notes that never leave this machine.

    python examples/clinic.py edge.toml notes.txt "Which medicine does the patient take?" record-7 record-9

Records are documents of the cloud. No position of them is sent: the kind is a draft, the KV of the cloud's own short
answer. The notes are for the Receiver alone; it turns to them where the record does not hold the answer. The records
are asked about at once; what each answer rests on, and how much of the record left the cloud, stands behind it.
"""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_node import Answer, Ask, AsyncAssistant, KvwireError, SliceKind


async def one(assistant: AsyncAssistant, ask: Ask) -> Answer | KvwireError:
    """An answer, or why this record may not be asked about."""
    try:
        return await assistant.ask(ask)
    except KvwireError as error:
        return error


async def main(config: str, notes: str, question: str, records: Sequence[str]) -> None:
    """Ask about all the records and print a line for each."""
    text = Path(notes).read_text(encoding="utf-8")
    asks = [Ask(question, document=record, notes=text, kind=SliceKind.DRAFT) for record in records]
    async with await AsyncAssistant.from_config(config) as assistant:
        found = await asyncio.gather(*(one(assistant, ask) for ask in asks))
    for record, answer in zip(records, found, strict=True):
        if isinstance(answer, KvwireError):
            print(f"{record}: {type(answer).__name__}: {answer.public_text}")
        elif not answer.answered:
            print(f"{record}: no answer ({answer.reason})")
        else:
            source = "notes" if answer.reason == "NOTES" else "record"
            print(f"{record}: {answer.text} ({source}; {answer.payload_bytes:,} bytes of a draft)")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]))
