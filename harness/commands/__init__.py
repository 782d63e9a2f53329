"""What the command line does; a command prints and returns its exit status."""
