"""The demonstration: one sample subject from photos to pictures, through both services on this machine."""
