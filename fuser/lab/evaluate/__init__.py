"""Evaluation of a pair with its controls (docs/design.md, "Claims")."""
