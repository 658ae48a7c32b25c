"""The sequential statistics that judge a candidate: pure, stdlib only."""
