"""Studies: what the analyses say of real and synthetic runs. Their JSON and pictures are in docs/findings."""
