// Max pooling right behind a convolution that reads few channels: forward and backward pass (ops/stem_pool.py).
//
// The convolution's output would be the largest tensor of such a network. Instead every thread computes its rows when a
// window needs them and keeps only as many as a window spans; in the backward pass it computes a row of the gradient
// when a filter needs it.

#pragma once

#include "stem_convolution.h"

namespace {

using cnnvis_fast::StemPool;
using cnnvis_fast::StemPoolBackward;

template <class Element>
void stem_pool_of(const StemPool& r) {
    const StemConvolution& stem = r.stem;
    const Pool& pool = r.pool;
    const int64_t bands = pool.batch % pool.threads ? pool.threads : 1;
    const int64_t row = pool.width * pool.channels, out = pool.out_width * pool.channels;
    const int64_t kept = kept_rows(pool), step = pool.dilation[0];
#pragma omp parallel for schedule(static) num_threads(pool.threads)
    for (int64_t task = 0; task < pool.batch * bands; ++task) {
        Element* const rows = static_cast<Element*>(r.rows) + thread_number() * kept * row;
        const int64_t picture = task / bands, band = task % bands;
        const auto row_of = [&](int64_t i) { return rows + i % kept * row; };
        int64_t made = 0;  // rows before this one are in scratch or not needed
        for (int64_t down = pool.out_height * band / bands; down < pool.out_height * (band + 1) / bands; ++down) {
            const Taps taps(down, pool.height, pool.kernel[0], pool.stride[0], pool.padding[0], pool.dilation[0]);
            // Starts at the first row that this window or a later one reads: with dilation it may lie above this
            // window's first row.
            const int64_t origin = down * pool.stride[0] - pool.padding[0], first = origin < 0 ? 0 : origin;
            const int64_t end = origin + (taps.end - 1) * step + 1;
            for (made = made < first ? first : made; made < end; ++made) {
                Element* const y = row_of(made);
                stem_row(stem, picture, made, rows_of_thread<Element>(stem),
                         [&](int64_t column, int64_t channel, Floats sum) {
                             if (stem.bias) sum = sum + load<Floats>(stem.bias + channel);
                             store(y + column * pool.channels + channel, Converted<Element>::from(sum));
                         });
            }
            const int64_t at = (picture * pool.out_height + down) * out;
            pool_row(pool, down, row_of, static_cast<Element*>(pool.y) + at, pool.place + at);
        }
    }
}

void stem_pool(const StemPool& r) { r.pool.bfloat16 ? stem_pool_of<Bfloat16>(r) : stem_pool_of<float>(r); }

template <class Element>
void stem_pool_backward_of(const StemPoolBackward& r) {
    const int64_t size = r.pool.width * r.pool.channels;
    input_gradient_by<Element>(r.backward, [&](int64_t picture, int64_t row, Word* to) {
        Element* const dy = static_cast<Element*>(r.rows) + thread_number() * size;
        pool_backward_row(r.pool, picture, row, dy);
        transpose_row(r.backward, dy, nullptr, to);
    });
}

void stem_pool_backward(const StemPoolBackward& r) {
    r.pool.bfloat16 ? stem_pool_backward_of<Bfloat16>(r) : stem_pool_backward_of<float>(r);
}

}  // namespace
