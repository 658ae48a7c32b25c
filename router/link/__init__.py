"""The link to the control process: routing tables in; leases, observations and feedback out."""
