"""The threaded client and server."""
