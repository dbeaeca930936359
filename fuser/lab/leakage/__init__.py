"""What slices give away beyond their answer: attacks with their controls (docs/privacy.md)."""
