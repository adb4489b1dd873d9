"""How fast concepts are trained, alone and together, against loops written as diffusers' example scripts do it."""
