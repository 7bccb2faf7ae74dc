"""Curves of runs as pictures, by Pillow alone."""
