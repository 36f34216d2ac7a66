"""Training: the command's networks, their runs, and what is made of them."""
