"""How a sweep trains its runs: worker processes, what is known of their progress, and where they are started."""
