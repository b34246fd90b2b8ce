"""What explains streaming rather than does it: the doctor, which checks any server's streams."""
