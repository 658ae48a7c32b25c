"""The parts of the benchmark of shadowing: a fake engine with a capacity, and a comparator."""
