"""One sample of fused members: what kernels take, and what they give."""
