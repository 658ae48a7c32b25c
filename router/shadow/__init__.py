"""The comparator: takes mirrored requests, scores both arms, reports what it saw."""
