"""Who calls, and what they may call: tokens, the keys that sign them, and what each method needs."""
