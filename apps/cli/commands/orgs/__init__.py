"""Commands about orgs, where people work together, and about what they did there."""
