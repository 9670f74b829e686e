// A linear function of a rectified convolution that reads few channels: its value and input gradient (ops/stem.py).
//
// Of the convolution, the backward pass needs only where it is positive: there it reads the function's maps. So a row
// of the convolution is computed when its gradient is due; only the signs and the sum of its products are kept, and no
// map of the layer is ever written. Where two bands of rows meet, a few rows are computed twice.

#pragma once

#include "stem_convolution.h"
#include "sums.h"

namespace {

using cnnvis_fast::StemGradient;

typedef double Doubles __attribute__((vector_size(8 * kLanes)));

// Computes a row of the convolution, writes its mask and returns the sum of its products with `maps`.
template <class Element>
double signs_and_sum(const StemConvolution& r, int64_t picture, int64_t row, const Element* maps, uint8_t* mask) {
    Doubles total{};
    Floats products{};
    int added = 0;
    stem_row(r, picture, row, rows_of_thread<Element>(r), [&](int64_t column, int64_t channel, Floats sum) {
        if (r.bias) sum = sum + load<Floats>(r.bias + channel);
        write_mask(sum, channel, mask + column * r.out_channels / 8);
        products = products + rectified(sum) * floats(maps + column * r.out_channels + channel);
        if (++added == kRounds) {
            total = total + __builtin_convertvector(products, Doubles);
            products = Floats{};
            added = 0;
        }
    });
    total = total + __builtin_convertvector(products, Doubles);
    double sum = 0;
    for (int lane = 0; lane < kLanes; ++lane) sum += total[lane];
    return sum;
}

template <class Element>
void stem_gradient_of(const StemGradient& r) {
    const InputGradient& backward = r.backward;
    const Element* const maps = static_cast<const Element*>(backward.dy);
    const int64_t mask_bytes = backward.out_width * backward.out_channels / 8;
    input_gradient_by<Element>(backward, [&](int64_t picture, int64_t row, Word* to) {
        const int64_t at = picture * backward.out_height + row;
        const Element* const from = maps + at * backward.out_width * backward.out_channels;
        uint8_t* const mask = r.masks + thread_number() * mask_bytes;
        const double sum = signs_and_sum(r.forward, picture, row, from, mask);
#pragma omp atomic write  // two bands may compute the same row, with the same sum
        r.row_sums[at] = sum;
        transpose_row(backward, from, mask, to);
    });
    for (int64_t picture = 0; picture < backward.batch; ++picture) {
        double total = 0;
        for (int64_t row = 0; row < backward.out_height; ++row)
            total += r.row_sums[picture * backward.out_height + row];
        r.sums[picture] = static_cast<float>(total);
    }
}

void stem_gradient(const StemGradient& r) {
    r.forward.bfloat16 ? stem_gradient_of<Bfloat16>(r) : stem_gradient_of<float>(r);
}

}  // namespace
