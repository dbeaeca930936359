"""A pair of one's own, of two models and texts: checked, read, timed, written down as a recipe, made and reported."""
