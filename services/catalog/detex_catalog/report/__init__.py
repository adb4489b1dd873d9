"""What a run tells people and machines when it ends: tables, a page, metrics."""
