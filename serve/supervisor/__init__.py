"""Starts and supervises the processes of one installation. Start reading at `supervisor`."""
