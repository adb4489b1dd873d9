"""What each kernel computes, written in torch: the measure of parity, and what computes on CPUs."""
