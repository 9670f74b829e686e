// The kernels for one instruction set. CMake compiles this file once per set, with its flags and with CNNVIS_FAST_LEVEL
// defined as its name; bindings_pictures.cpp chooses at run time among those that the CPU can run.

#include "ascend.h"
#include "input_gradient.h"
#include "kernels.h"
#include "pointwise.h"
#include "pooling.h"
#include "rectify.h"
#include "render.h"
#include "stem_convolution.h"
#include "stem_gradient.h"
#include "stem_pool.h"
#include "sums.h"
#include "warp.h"
#include "winograd.h"

namespace {

// Choose the instance for the number of channels and the network's dtype.
template <int C, class Element>
void render_as(const Render& r) {
    r.pictures.affine ? render_affine<C, Element>(r) : render_rolled<C, Element>(r);
}

template <int C, class Element>
void render_backward_as(const RenderBackward& r) {
    r.pictures.affine ? render_backward_affine<C, Element>(r) : render_backward_rolled<C, Element>(r);
}

void render(const Render& r) {
    switch (r.pictures.channels) {
        case 1: return r.bfloat16 ? render_as<1, Bfloat16>(r) : render_as<1, float>(r);
        case 2: return r.bfloat16 ? render_as<2, Bfloat16>(r) : render_as<2, float>(r);
        case 3: return r.bfloat16 ? render_as<3, Bfloat16>(r) : render_as<3, float>(r);
        case 4: return r.bfloat16 ? render_as<4, Bfloat16>(r) : render_as<4, float>(r);
    }
}

void render_backward(const RenderBackward& r) {
    switch (r.pictures.channels) {
        case 1: return r.bfloat16 ? render_backward_as<1, Bfloat16>(r) : render_backward_as<1, float>(r);
        case 2: return r.bfloat16 ? render_backward_as<2, Bfloat16>(r) : render_backward_as<2, float>(r);
        case 3: return r.bfloat16 ? render_backward_as<3, Bfloat16>(r) : render_backward_as<3, float>(r);
        case 4: return r.bfloat16 ? render_backward_as<4, Bfloat16>(r) : render_backward_as<4, float>(r);
    }
}

}  // namespace

namespace cnnvis_fast::CNNVIS_FAST_LEVEL {

extern const Kernels kernels;
const Kernels kernels = {
    render,           render_backward, ascend_any,       dot,           restrain,  rectify,
    rectify_backward, max_pool,        max_pool_backward, input_gradient, stem_convolution,
    stem_gradient,    stem_pool,       stem_pool_backward, winograd,      pointwise};

}  // namespace cnnvis_fast::CNNVIS_FAST_LEVEL
