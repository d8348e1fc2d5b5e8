"""Ray itself: started on this machine or joined (cluster.py), beside other work (session.py), at an address."""
