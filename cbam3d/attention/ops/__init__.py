"""Fused gate operators: reference, CPU and Triton implementations."""
