"""The web page of detex: from dropped photos to pictures, for people who have no use for a command line."""
