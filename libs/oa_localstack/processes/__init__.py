"""Child processes: started as another user where needed, supervised, and ended with us."""
