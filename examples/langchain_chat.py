"""LangChain around the local API: `kvwire edge` speaks OpenAI's, so LangChain's own chat model asks it.

    pip install langchain-openai
    kvwire edge --config edge.toml &
    python examples/langchain_chat.py edge.toml note-1 "Where is the spare key?"

The address is that of `[api] listen`. Only the last message goes to the cloud: the system prompt stays at the edge. A
question that gets no answer is an exception with the reason as its code, never a guess.
"""

import sys

import openai
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI

from edge_node import EdgeConfig


def main(config: str, document: str, question: str) -> int:
    """Print the answer and where it came from; returns the exit status."""
    model = ChatOpenAI(
        model=f"kvwire/{document}",
        base_url=f"http://{EdgeConfig.load(config).api.listen}/v1",
        api_key="none",
        extra_body={"kvwire": {"deadline_s": 10.0}},
    )
    try:
        reply = model.invoke([SystemMessage("Answer in a few words."), HumanMessage(question)])
    except openai.APIStatusError as error:
        print(f"no answer: {error.code}: {error.message}")
        return 1
    account = reply.response_metadata["token_usage"]["kvwire"]
    print(f"{reply.text} ({account['source']}, {account['bytes_received']:,} bytes received)")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
