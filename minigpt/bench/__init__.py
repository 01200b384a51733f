"""`minigpt bench`: how fast the package is, beside its peers, as ratios in one run, and how much memory it takes.

Functions return or yield rows, and print nothing.
"""
