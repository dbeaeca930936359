"""What each plan of a bundle is worth: measured on training data, kept as a table that an edge picks from"""
