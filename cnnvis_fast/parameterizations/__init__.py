"""What the ascent moves: Fourier coefficients, their phases (MACO), a small network (CPPN), or pixels.

Each parameterization decodes its parameters into z, the picture before the logistic function, and maps the
gradient of z back. May import `networks`, `images` and everything below.
"""
