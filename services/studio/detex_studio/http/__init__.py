"""Studio over HTTP: pages, files and a JSON interface for the page alone."""
