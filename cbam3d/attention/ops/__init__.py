"""Fused operators of the gates: a reference, a CPU and a Triton implementation."""
