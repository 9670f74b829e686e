// render and render_backward without a warp or with jitter; the formulas are in ops/render.py.
//
// Jitter moves whole runs of pixels, so every row consists of two runs. Color, logistic function, preprocessing and
// rounding happen in registers: one pass from z to x, and one from g and z to dz.

#pragma once

#include "kernels.h"
#include "pixels.h"

namespace {

using cnnvis_fast::Pictures;
using cnnvis_fast::Render;
using cnnvis_fast::RenderBackward;
using std::int64_t;

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// Returns a remainder that is never negative, for shifts to the left or beyond the size.
inline int64_t wrapped(int64_t position, int64_t size) {
    const int64_t rest = position % size;
    return rest < 0 ? rest + size : rest;
}

template <int C>
struct Colors {
    float color[C][C], mean[C], scale[C];

    Colors(const float* matrix, const float* means, const float* stds) {
        for (int c = 0; c < C; ++c) {
            for (int k = 0; k < C; ++k) color[c][k] = matrix[c * C + k];
            mean[c] = means ? means[c] : 0.0f;
            scale[c] = 1.0f / stds[c];
        }
    }
};

// Computes logistic(color @ z), the picture's values in (0, 1), at up to kLanes pixels.
template <int C>
inline void shade(const Colors<C>& colors, const float* z, int64_t plane, int64_t count, Floats (&s)[kFour]) {
    Floats planes[C];
    for (int k = 0; k < C; ++k) planes[k] = load_some(z + k * plane, count);
    for (int c = 0; c < C; ++c) {
        Floats u = planes[0] * colors.color[c][0];
        for (int k = 1; k < C; ++k) u = u + planes[k] * colors.color[c][k];
        s[c] = logistic(u);
    }
}

// Computes dz = color^T @ (s (1 - s) ds) at up to kLanes pixels.
template <int C>
inline void unshade(const Colors<C>& colors, const Floats (&s)[kFour], const Floats (&ds)[kFour], int64_t count,
                    float* dz, int64_t plane) {
    Floats du[C];
    for (int c = 0; c < C; ++c) du[c] = (s[c] - s[c] * s[c]) * ds[c];
    for (int k = 0; k < C; ++k) {
        Floats sum = du[0] * colors.color[0][k];
        for (int c = 1; c < C; ++c) sum = sum + du[c] * colors.color[c][k];
        store_some(dz + k * plane, sum, count);
    }
}

// Convert planes to pixels in the network's dtype, and back.
template <int C, class Element>
inline void interleave(const Floats (&planes)[kFour], int64_t count, Element* to) {
    float pixels[kFour * kLanes];
    to_pixels(planes, pixels);
    write_pixels<C>(pixels, count, to);
}

template <int C, class Element>
inline void deinterleave(const Element* from, int64_t count, Floats (&planes)[kFour]) {
    float pixels[kFour * kLanes];
    read_pixels<C>(from, count, pixels);
    to_planes(pixels, planes);
}

// Calls task(picture, first row, end row) for every picture and band on the requested number of threads.
template <class Task>
inline void for_bands(const Pictures& pictures, const Task& task) {
    int64_t a = pictures.threads, b = pictures.batch;
    while (b) {
        const int64_t rest = a % b;
        a = b;
        b = rest;
    }
    const int64_t bands = smaller(pictures.threads / a, pictures.height);  // a: greatest common divisor
    const int64_t tasks = pictures.batch * bands;
#pragma omp parallel for schedule(static) num_threads(pictures.threads) if (tasks > 1)
    for (int64_t index = 0; index < tasks; ++index) {
        const int64_t picture = index / bands, band = index % bands;
        task(picture, band * pictures.height / bands, (band + 1) * pictures.height / bands);
    }
}

// Calls run(from, to, count) for the two runs of pixels that make up a row of a rolled picture: output pixels at `to`
// are input pixels at `from`, both counted from the start of the picture.
template <class Run>
inline void for_runs(const Pictures& pictures, int64_t picture, int64_t row, const Run& run) {
    const int64_t* jitter = pictures.jitter ? pictures.jitter + 2 * picture : nullptr;
    const int64_t width = pictures.width;
    const int64_t down = jitter ? jitter[0] : 0, right = jitter ? wrapped(jitter[1], width) : 0;
    const int64_t from = wrapped(row - wrapped(down, pictures.height), pictures.height) * width;
    const int64_t to = row * width;
    if (right) run(from + width - right, to, right);
    run(from, to + right, width - right);
}

template <int C, class Element>
void render_rolled(const Render& r) {
    const Colors<C> colors(r.color, r.mean, r.std);
    const int64_t plane = r.pictures.height * r.pictures.width;
    for_bands(r.pictures, [&](int64_t picture, int64_t first, int64_t last) {
        const float* z = r.z + picture * C * plane;
        Element* x = static_cast<Element*>(r.x) + picture * C * plane;
        for (int64_t row = first; row < last; ++row) {
            for_runs(r.pictures, picture, row, [&](int64_t from, int64_t to, int64_t length) {
                for (int64_t done = 0; done < length; done += kLanes) {
                    Floats s[kFour] = {};
                    shade<C>(colors, z + from + done, plane, length - done, s);
                    for (int c = 0; c < C; ++c) s[c] = (s[c] - colors.mean[c]) * colors.scale[c];
                    interleave<C>(s, length - done, x + (to + done) * C);
                }
            });
        }
    });
}

template <int C, class Element>
void render_backward_rolled(const RenderBackward& r) {
    const Colors<C> colors(r.color, nullptr, r.std);
    const int64_t plane = r.pictures.height * r.pictures.width;
    for_bands(r.pictures, [&](int64_t picture, int64_t first, int64_t last) {
        const float* z = r.z + picture * C * plane;
        const Element* g = static_cast<const Element*>(r.g) + picture * C * plane;
        float* dz = r.dz + picture * C * plane;
        for (int64_t row = first; row < last; ++row) {
            for_runs(r.pictures, picture, row, [&](int64_t from, int64_t to, int64_t length) {
                for (int64_t done = 0; done < length; done += kLanes) {
                    Floats s[kFour], ds[kFour];
                    shade<C>(colors, z + from + done, plane, length - done, s);
                    deinterleave<C>(g + (to + done) * C, length - done, ds);
                    for (int c = 0; c < C; ++c) ds[c] = ds[c] * colors.scale[c];
                    unshade<C>(colors, s, ds, length - done, dz + from + done, plane);
                }
            });
        }
    });
}

}  // namespace
