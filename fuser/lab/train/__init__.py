"""Training of a pair's Fuser: cache both frozen models once, regress, then the answer loss."""
