"""The program that trains one job: job spec on standard input, events as JSON lines on standard output."""
