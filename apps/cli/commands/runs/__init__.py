"""Commands about runs, what starts them, and what is left of them."""
