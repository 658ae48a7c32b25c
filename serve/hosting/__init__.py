"""Ray Serve applications of the hosted variants. Start reading at `plan`."""
