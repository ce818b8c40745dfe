"""Attention put into networks that are already there."""
