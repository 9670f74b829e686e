"""What the ascent moves: Fourier coefficients, their phases (MACO), a small network (CPPN), or pixels.

Each parameterization decodes its parameters into z, the picture before the logistic function, and maps the
gradient of z to the gradient of its parameters. A new one is a subclass of `Parameterization` in its own file
and one line in the table of `choice`. May import `networks`, `images` and everything below.
"""
