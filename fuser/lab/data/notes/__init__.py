"""Generated documents of the kinds that people have: forms, tables, logs, settings, letters, and questions on them."""
