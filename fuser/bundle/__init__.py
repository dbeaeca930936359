"""A bundle on disk: config, tensors, codec state, plans."""
