"""What an agent says: `saying` is all of it, `progress` joins reports, `json_values` makes JSON for events."""
