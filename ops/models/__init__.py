"""Real models, pinned by hash: fetched once, converted once to safetensors."""
