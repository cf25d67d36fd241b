"""The rules of invitations, and the mail about an invitation."""
