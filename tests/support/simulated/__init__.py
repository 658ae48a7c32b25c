"""A whole installation in virtual time: the shipped control code under injected faults."""
