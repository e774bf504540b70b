"""Channel-wise lightweight reprogramming of one frozen backbone (Ge et al., ICCV 2023)."""
