"""Data for training and evaluation: three kinds of items, where they come from, and what training must not see."""
