// The rectified convolution that reads few channels, under a linear function of its output: value and input gradient,
// see convolutions.py.
//
// The way back wants the function's maps where the convolution is positive, and nothing else of it. So a row of the
// convolution is made when its gradient's turn comes; signs and the sum of its products are all that is kept, and no
// map of the layer is ever written. Where two bands of rows meet, a few rows are made twice.

#pragma once

#include "stem_convolution.h"
#include "sums.h"

namespace {

using cnnvis_fast::StemGradient;

typedef double Doubles __attribute__((vector_size(8 * kLanes)));

// A row of the convolution: its mask, and the sum of its products with `maps`.
template <class Element>
double signs_and_sum(const StemConvolution& r, int64_t image, int64_t row, const Element* maps, uint8_t* mask) {
    Doubles total{};
    Floats products{};
    int added = 0;
    stem_row(r, image, row, rows_of_thread<Element>(r), [&](int64_t column, int64_t channel, Floats sum) {
        if (r.bias) sum = sum + load<Floats>(r.bias + channel);
        mark(sum, channel, mask + column * r.out_channels / 8);
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
    const InputGradient& back = r.back;
    const Element* const maps = static_cast<const Element*>(back.dy);
    const int64_t mask_bytes = back.out_width * back.out_channels / 8;
    input_gradient_by<Element>(back, [&](int64_t image, int64_t row, Word* to) {
        const int64_t at = image * back.out_height + row;
        const Element* const from = maps + at * back.out_width * back.out_channels;
        uint8_t* const mask = r.masks + thread_number() * mask_bytes;
        const double sum = signs_and_sum(r.there, image, row, from, mask);
#pragma omp atomic write  // two bands may make the same row, and the same sum
        r.row_sums[at] = sum;
        turn_row(back, from, mask, to);
    });
    for (int64_t image = 0; image < back.batch; ++image) {
        double total = 0;
        for (int64_t row = 0; row < back.out_height; ++row) total += r.row_sums[image * back.out_height + row];
        r.sums[image] = static_cast<float>(total);
    }
}

void stem_gradient(const StemGradient& r) {
    r.there.bfloat16 ? stem_gradient_of<Bfloat16>(r) : stem_gradient_of<float>(r);
}

}  // namespace
