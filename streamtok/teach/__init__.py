"""What explains streaming rather than does it: lessons, and a doctor for any server's streams."""
