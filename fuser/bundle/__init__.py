"""A bundle on disk: config, tensors, codec state, plans; and those that ship."""
