"""The heads that are trained: translate, fuse (our own and the public one), and the choice of an excerpt."""
