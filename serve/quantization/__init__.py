"""Quantizes a full-precision model folder and describes it by a manifest."""
