"""Random process graphs, damaged files and odd requests: none may end in 5xx, a hang or unbounded memory."""
