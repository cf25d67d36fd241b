"""Tools that keep the checkout in order: generation, gates and the documents made from code. Never shipped."""
