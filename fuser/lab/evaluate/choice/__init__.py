"""Multiple choice: rows, extraction, fits."""
