// A convolution that reads few channels (ops/stem.py).
//
// Libraries vectorize over the channels that a kernel reads; there are too few of them here. But the pixels under a
// filter's row are contiguous, so they are read in words (a float32, or two bfloat16, whose products one instruction
// adds), and a weight's word serves several pixels' sums at once. Every thread copies the rows that its row of pixels
// reads, with zeros around them; the last word of a filter's row may reach into the next pixel, with a weight of zero.

#pragma once

#include "convolution_output.h"
#include "input_gradient.h"

namespace {

using cnnvis_fast::kPanel;
using cnnvis_fast::row_elements;
using cnnvis_fast::StemConvolution;

constexpr int kPixels = kLanes == 16 ? cnnvis_fast::kStemPixels : 4;  // as many as the registers have sums for

// Copies one row of x with its padding.
template <class Element>
void copy_row(const StemConvolution& r, int64_t picture, int64_t y, Element* to) {
    const int64_t left = r.padding[1] * r.channels, whole = row_elements(r);
    const bool inside = y >= 0 && y < r.height;
    const int64_t given = r.width * r.channels < whole - left ? r.width * r.channels : whole - left;
    const Element* from = static_cast<const Element*>(r.x) + (picture * r.height + y) * r.width * r.channels;
    for (int64_t k = 0; k < left; ++k) to[k] = Element{};
    if (inside)
        for (int64_t k = 0; k < given; ++k) to[left + k] = from[k];
    for (int64_t k = left + (inside ? given : 0); k < whole; ++k) to[k] = Element{};
}

// Computes `Pieces` vectors of output channels, from `channel` on, of kPixels pixels, and passes the first `count`
// pixels' sums to take(pixel, channel, sum) one by one.
template <class Element, int Pieces, class Take>
inline void pixels_of(const StemConvolution& r, const Element* rows, int64_t channel, int64_t count,
                      const Take& take) {
    Floats sum[kPixels][Pieces] = {};
    const int64_t step = r.stride[1] * r.channels, panel = r.kernel[0] * r.words * kPanel;
    for (int64_t i = 0; i < r.kernel[0]; ++i) {
        const Element* x = rows + i * row_elements(r);
        const Word* weight[Pieces];
        for (int p = 0; p < Pieces; ++p) {
            const int64_t at = channel + p * kLanes;
            weight[p] = r.weight + at / kPanel * panel + i * r.words * kPanel + at % kPanel;
        }
        for (int64_t word = 0; word < r.words; ++word, x += kPair<Element>) {
            Integers w[Pieces];
            for (int p = 0; p < Pieces; ++p) w[p] = load<Integers>(weight[p] + word * kPanel);
#pragma GCC unroll 14
            for (int t = 0; t < kPixels; ++t) {
                const Integers one = Integers{} + load<Word>(x + t * step);
                for (int p = 0; p < Pieces; ++p) sum[t][p] = dot(Element{}, sum[t][p], w[p], one);
            }
        }
    }
#pragma GCC unroll 14
    for (int t = 0; t < kPixels; ++t) {
        if (t == count) return;
        for (int p = 0; p < Pieces; ++p) take(t, channel + p * kLanes, sum[t][p]);
    }
}

// Computes one row of the convolution and passes its sums to take(column, channel, sum); `rows` is the thread's own.
template <class Element, class Take>
inline void stem_row(const StemConvolution& r, int64_t picture, int64_t row, Element* rows, const Take& take) {
    constexpr int kPieces = 2;
    const int64_t top = row * r.stride[0] - r.padding[0];
    for (int i = 0; i < r.kernel[0]; ++i)
        copy_row(r, picture, top + i * r.dilation[0], rows + i * row_elements(r));
    for (int64_t column = 0; column < r.out_width; column += kPixels) {
        const int64_t count = r.out_width - column < kPixels ? r.out_width - column : kPixels;
        const Element* const x = rows + column * r.stride[1] * r.channels;
        const auto taken = [&](int64_t t, int64_t channel, Floats sum) { take(column + t, channel, sum); };
        int64_t channel = 0;
        for (; channel + kPieces * kLanes <= r.out_channels; channel += kPieces * kLanes)
            pixels_of<Element, kPieces>(r, x, channel, count, taken);
        if (channel < r.out_channels) pixels_of<Element, 1>(r, x, channel, count, taken);
    }
}

// Returns this thread's scratch rows.
template <class Element>
inline Element* rows_of_thread(const StemConvolution& r) {
    return static_cast<Element*>(r.scratch) + thread_number() * r.kernel[0] * row_elements(r);
}

template <class Element>
void stem_convolution_of(const StemConvolution& r) {
#pragma omp parallel for schedule(static) num_threads(r.threads)
    for (int64_t task = 0; task < r.batch * r.out_height; ++task) {
        Element* const y = static_cast<Element*>(r.y) + task * r.out_width * r.out_channels;
        uint8_t* const mask = r.mask ? r.mask + task * r.out_width * r.out_channels / 8 : nullptr;
        stem_row(r, task / r.out_height, task % r.out_height, rows_of_thread<Element>(r),
                 [&](int64_t column, int64_t channel, Floats sum) {
                     finish(sum, r.bias, channel, r.out_channels, y + column * r.out_channels,
                            mask ? mask + column * r.out_channels / 8 : nullptr);
                 });
        flush_stores();
    }
}

void stem_convolution(const StemConvolution& r) {
    r.bfloat16 ? stem_convolution_of<Bfloat16>(r) : stem_convolution_of<float>(r);
}

}  // namespace
