"""The claims of control's tokens, and how the tokens are signed and verified."""
