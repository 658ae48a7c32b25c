"""What is computed for each mirrored pair: displacement and its kin, and the harm checks. Pure."""
