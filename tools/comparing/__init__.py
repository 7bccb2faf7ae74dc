"""Trials that compare variants under one budget."""
