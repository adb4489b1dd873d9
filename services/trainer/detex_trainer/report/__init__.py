"""The report of a training: measurements, findings, verdict, picture."""
