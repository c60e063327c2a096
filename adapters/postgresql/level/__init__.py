"""An access level on the server: its privileges, its managed role, and its state before and after a grant."""
