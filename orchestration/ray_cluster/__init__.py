"""Ray itself: started on this machine, or joined."""
