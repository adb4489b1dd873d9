"""The wire contract of proto/, generated; never edited."""
