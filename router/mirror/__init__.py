"""Copies of answered requests: which are chosen, tapped, framed and handed to the comparator."""
