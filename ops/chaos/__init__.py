"""Proof that it keeps working: faults of every kind, drawn by a seed, and a checker of every answer's history."""
