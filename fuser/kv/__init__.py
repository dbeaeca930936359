"""KV of one model: its shape, its rotation, prefill, prefixes kept, generation on top of it."""
