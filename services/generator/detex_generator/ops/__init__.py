"""Operations of the denoising step that have kernels of their own, and the choice of what computes them.

Each operation has a module here with its public function and its torch operator, a torch reference of the same name in
`references` and a Triton kernel of the same name in `triton_kernels`. Nothing here imports Triton before a kernel is
asked for, so that machines without it are served as well.
"""
