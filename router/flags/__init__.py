"""Who gets which variant: routing table, evaluation, bucketing, slices, flagd import and export."""
