"""What serve_forever() does for the process: signals, and the protocols of systemd."""
