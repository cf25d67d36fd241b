"""Which log this is: its epoch, and whether the server still has the past that was followed."""
