"""Sequential statistics that judge a candidate: pure, standard library only."""
