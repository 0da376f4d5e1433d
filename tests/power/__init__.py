"""Power cuts, simulated: what a command asks of the disk, what a cut may leave of it, and whether that will do."""
