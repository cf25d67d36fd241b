"""The description of the edge for programs: an OpenAPI document."""
