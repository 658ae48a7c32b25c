"""The metrics of the control process, and where the other processes have theirs."""
