"""Insertion of attention into existing networks."""
