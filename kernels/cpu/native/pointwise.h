// 1 x 1 convolutions in bfloat16 (ops/pointwise.py), as products of pixels and filters.
//
// A block of pixels keeps its sums in registers, for two vectors of output channels at a time; each word of a pixel
// (two channels, whose products one instruction adds) is read once for both. A thread takes its pixels in groups that
// stay in the second-level cache, so that the filters are read once per group.

#pragma once

#include "convolution_output.h"
#include "input_gradient.h"

namespace {

using cnnvis_fast::kBlock;
using cnnvis_fast::kPanel;
using cnnvis_fast::Pointwise;

// Computes `Pieces` vectors of output channels, from `channel` on, of the `count` pixels of a block.
template <int Pieces>
inline void block_of(const Pointwise& r, const Bfloat16* x, int64_t channel, int64_t count, Bfloat16* y,
                     uint8_t* mask) {
    constexpr int kPixels = kLanes == 16 ? kBlock : 2;  // as many as the registers have sums for
    static_assert(kBlock % kPixels == 0, "a block is read in whole groups of kPixels");
    const int64_t words = r.channels / 2;
    const Word* weight[Pieces];
    for (int p = 0; p < Pieces; ++p) {
        const int64_t at = channel + p * kLanes;
        weight[p] = r.weight + at / kPanel * words * kPanel + at % kPanel;
    }
    for (int64_t from = 0; from < count; from += kPixels) {
        const Bfloat16* const pixels = x + from * r.channels;
        Floats sum[kPixels][Pieces] = {};
        for (int64_t word = 0; word < words; ++word) {
            Integers w[Pieces];
            for (int p = 0; p < Pieces; ++p) w[p] = load<Integers>(weight[p] + word * kPanel);
#pragma GCC unroll 14
            for (int t = 0; t < kPixels; ++t) {
                const Integers one = Integers{} + load<Word>(pixels + t * r.channels + 2 * word);
                for (int p = 0; p < Pieces; ++p) sum[t][p] = dot(Bfloat16{}, sum[t][p], w[p], one);
            }
        }
#pragma GCC unroll 14
        for (int t = 0; t < kPixels; ++t) {
            if (from + t >= count) return;
            for (int p = 0; p < Pieces; ++p)
                finish(sum[t][p], r.bias, channel + p * kLanes, r.out_channels, y + (from + t) * r.out_channels,
                       mask ? mask + (from + t) * r.out_channels / 8 : nullptr);
        }
    }
}

void pointwise(const Pointwise& r) {
    constexpr int kPieces = 2;
    const int64_t blocks = (r.pixels + kBlock - 1) / kBlock, whole = r.pixels / kBlock;
    // The last block may be incomplete: its pixels are copied to scratch, where a whole block can be read.
    for (int64_t k = whole * kBlock * r.channels; k < r.pixels * r.channels; ++k)
        r.scratch[k - whole * kBlock * r.channels] = static_cast<const Bfloat16*>(r.x)[k];
#pragma omp parallel for schedule(static) num_threads(r.threads)
    for (int64_t share = 0; share < r.threads; ++share) {
        const int64_t end = blocks * (share + 1) / r.threads;
        for (int64_t group = blocks * share / r.threads; group < end; group += r.group) {
            const int64_t last = group + r.group < end ? group + r.group : end;
            for (int64_t channel = 0; channel < r.out_channels; channel += kPieces * kLanes)
                for (int64_t block = group; block < last; ++block) {
                    const int64_t first = block * kBlock, count = block < whole ? kBlock : r.pixels - first;
                    const Bfloat16* const x =
                        block < whole ? static_cast<const Bfloat16*>(r.x) + first * r.channels : r.scratch;
                    Bfloat16* const y = static_cast<Bfloat16*>(r.y) + first * r.out_channels;
                    uint8_t* const mask = r.mask ? r.mask + first * r.out_channels / 8 : nullptr;
                    if (channel + kPieces * kLanes <= r.out_channels)
                        block_of<kPieces>(r, x, channel, count, y, mask);
                    else
                        block_of<1>(r, x, channel, count, y, mask);
                }
        }
        flush_stores();
    }
}

}  // namespace
