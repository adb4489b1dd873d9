"""Photos of one subject: upload, checks, masks, storage."""
