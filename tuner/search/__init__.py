"""What to probe next, and the loop that carries it out."""
