"""What is kept in memory between requests, bounded in bytes."""
