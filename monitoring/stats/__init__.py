"""The sequential statistics that judge a candidate: pure, stdlib and numpy only."""
