// What the instruction sets share: the kernels' arguments, and one table of functions for each set.
//
// Shapes are those of ops.py. Tensors are float32 unless told otherwise and were checked by the caller.

#pragma once

#include <cstdint>

namespace cnnvis_fast {

constexpr int kMostChannels = 4;  // a pixel's channels fill one 16-byte vector

// Work is cut into (image, band of rows) so that every thread gets the same number of tasks. What is computed
// for a pixel never depends on the band that it is in, so bits do not depend on the number of threads.
struct Pictures {
    std::int64_t batch, channels, height, width;
    const std::int64_t* jitter;  // [B, 2], or null
    const float* affine;         // [B, 2, 3], or null; both null: no warp
    int threads;
    float* scratch;  // threads x scratch_floats(), for affine warps
};

inline std::int64_t scratch_floats(const Pictures& pictures) {
    return 4 * pictures.width * pictures.height;
}

struct Render {
    Pictures pictures;
    const float *z, *color, *mean, *std;
    void* x;        // channels last
    bool bfloat16;  // x's dtype, else float32
};

struct RenderBackward {
    Pictures pictures;
    const void* g;  // channels last
    bool bfloat16;  // g's dtype, else float32
    const float *z, *color, *std;
    float* dz;
};

enum class SecondMoment { none, image, band, coefficient };

struct Ascend {
    std::int64_t batch, size, bands;
    SecondMoment second_moment;
    float *p, *m, *v;
    const float *dp, *schedule;
    const std::int64_t* band;
    double beta1, beta2, epsilon, weight_decay;
    float* energy;
    int threads;
    double* scratch;  // batch x ascend_doubles()
};

constexpr std::int64_t kChunk = 4096;  // elements that are summed, or updated, in one go

inline std::int64_t chunks(const Ascend& a) { return (a.size + kChunk - 1) / kChunk; }

// Per image: two partial sums a chunk; sum and count of every band.
inline std::int64_t ascend_doubles(const Ascend& a) { return 2 * chunks(a) + 2 * a.bands; }

struct Kernels {
    void (*render)(const Render&);
    void (*render_backward)(const RenderBackward&);
    void (*ascend)(const Ascend&);
};

}  // namespace cnnvis_fast
