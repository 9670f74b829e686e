// Convolutions of 3 x 3 by Winograd's minimal filtering F(2 x 2, 3 x 3), see network.py for the formulas.
//
// Tiles of 4 x 4 pixels become 16 numbers a channel, and so do filters ahead of time; a product of matrices for
// each of the 16 places, 2.25 times fewer multiplications than the convolution has, yields 2 x 2 pixels a tile.
// A thread takes tiles in blocks whose turned pixels stay in its cache; then, for a few output channels at a
// time, all 16 products of the block, whose sums stay there too, and the way back to pixels. A tile's sums
// run over channels in one order, whatever lies beside it, so bits do not depend on batch or threads.

#pragma once

#include "input_gradient.h"

namespace {

using cnnvis_fast::kPanel;
using cnnvis_fast::kPlaces;
using cnnvis_fast::Winograd;

constexpr int kTiles = kLanes == 16 ? 14 : 4;  // at a time, as many as the registers hold sums of
constexpr int kPieces = 2;                     // vectors of output channels at a time

inline Halves narrowed(Floats x) {
#if defined(__AVX512BF16__)
    return bits<Halves>(_mm512_cvtneps_pbh(bits<__m512>(x)));
#else
    return to_bfloat16(x);
#endif
}

struct Tile {
    int64_t image, y, x;  // first pixel that it writes
};

inline Tile tile_of(const Winograd& r, int64_t number) {
    const int64_t across = (r.out_width + 1) / 2, down = (r.out_height + 1) / 2;
    return {number / (across * down), number / across % down * 2, number % across * 2};
}

// The first three of four combinations are used twice: along rows and along columns.
inline void combine(const Floats& a, const Floats& b, const Floats& c, const Floats& d, Floats* to, int step) {
    to[0] = a - c;
    to[step] = b + c;
    to[2 * step] = c - b;
    to[3 * step] = b - d;
}

// A tile's pixels, turned; `stride` is from place to place.
void turn_tile(const Winograd& r, const Tile& tile, const Bfloat16* zeros, Bfloat16* to, int64_t stride) {
    const Bfloat16* pixel[kPlaces];
    for (int k = 0; k < kPlaces; ++k) {
        const int64_t y = tile.y - r.padding[0] + k / 4, x = tile.x - r.padding[1] + k % 4;
        const bool inside = y >= 0 && y < r.height && x >= 0 && x < r.width;
        pixel[k] = inside ? static_cast<const Bfloat16*>(r.x) + ((tile.image * r.height + y) * r.width + x) * r.channels
                          : zeros;
    }
    for (int64_t c = 0; c < r.channels; c += kLanes) {
        Floats rows[kPlaces], turned[kPlaces];
        for (int j = 0; j < 4; ++j)
            combine(floats(pixel[j] + c), floats(pixel[4 + j] + c), floats(pixel[8 + j] + c),
                    floats(pixel[12 + j] + c), rows + j, 4);
        for (int i = 0; i < 4; ++i)
            combine(rows[4 * i], rows[4 * i + 1], rows[4 * i + 2], rows[4 * i + 3], turned + 4 * i, 1);
        for (int k = 0; k < kPlaces; ++k) store(to + k * stride + c, narrowed(turned[k]));
    }
}

// Sums over channels for `Pieces` vectors of output channels of kTiles tiles.
template <int Pieces>
inline void multiply(const Bfloat16* tiles, int64_t channels, const Word* const* weight, float* sums) {
    Floats sum[kTiles][Pieces] = {};
    for (int64_t word = 0; word < channels / 2; ++word) {
        Integers w[Pieces];
        for (int p = 0; p < Pieces; ++p) w[p] = load<Integers>(weight[p] + word * kPanel);
#pragma GCC unroll 14
        for (int t = 0; t < kTiles; ++t) {
            const Integers one = Integers{} + load<Word>(tiles + t * channels + 2 * word);
            for (int p = 0; p < Pieces; ++p) sum[t][p] = dot(Bfloat16{}, sum[t][p], w[p], one);
        }
    }
#pragma GCC unroll 14
    for (int t = 0; t < kTiles; ++t)
        for (int p = 0; p < Pieces; ++p) store(sums + (t * Pieces + p) * kLanes, sum[t][p]);
}

// Back to pixels: a vector of output channels of one tile; `stride` is from place to place.
void write_tile(const Winograd& r, const Tile& tile, const float* sums, int64_t stride, int64_t channel) {
    Floats rows[2][4];
    for (int j = 0; j < 4; ++j) {
        Floats m[4];
        for (int i = 0; i < 4; ++i) m[i] = load<Floats>(sums + (4 * i + j) * stride);
        rows[0][j] = m[0] + m[1] + m[2];
        rows[1][j] = m[1] - m[2] - m[3];
    }
    const Floats bias = r.bias ? load<Floats>(r.bias + channel) : Floats{};
    for (int i = 0; i < 2 && tile.y + i < r.out_height; ++i) {
        const Floats* m = rows[i];
        Floats y[2] = {m[0] + m[1] + m[2] + bias, m[1] - m[2] - m[3] + bias};
        for (int j = 0; j < 2 && tile.x + j < r.out_width; ++j) {
            if (r.rectified) y[j] = y[j] < 0.0f ? Floats{} : y[j];
            const int64_t at = (tile.image * r.out_height + tile.y + i) * r.out_width + tile.x + j;
            store(static_cast<Bfloat16*>(r.y) + at * r.out_channels + channel, narrowed(y[j]));
        }
    }
}

// `Pieces` vectors of output channels, from `channel` on, of a block of tiles.
template <int Pieces>
void channels_of_block(const Winograd& r, int64_t first, int64_t count, int64_t channel, const Bfloat16* turned,
                       float* sums) {
    const int64_t words = r.channels / 2 * kPanel;
    for (int place = 0; place < kPlaces; ++place) {
        const Word* weight[Pieces];
        for (int p = 0; p < Pieces; ++p) {
            const int64_t at = channel + p * kLanes;
            weight[p] = r.weight + (at / kPanel * kPlaces + place) * words + at % kPanel;
        }
        for (int64_t t = 0; t < count; t += kTiles)
            multiply<Pieces>(turned + place * 2 * turned_stride(r) + t * r.channels, r.channels, weight,
                             sums + place * sums_stride(r) + t * Pieces * kLanes);
    }
    for (int64_t t = 0; t < count; ++t)
        for (int p = 0; p < Pieces; ++p)
            write_tile(r, tile_of(r, first + t), sums + (t * Pieces + p) * kLanes, sums_stride(r),
                       channel + p * kLanes);
}

void winograd(const Winograd& r) {
    const int64_t tiles = r.batch * ((r.out_height + 1) / 2) * ((r.out_width + 1) / 2);
    const int64_t groups = (tiles + kTiles - 1) / kTiles;
#pragma omp parallel for schedule(static) num_threads(r.threads)
    for (int thread = 0; thread < r.threads; ++thread) {
        float* const sums = r.scratch + thread * scratch_floats(r);
        Bfloat16* const turned = reinterpret_cast<Bfloat16*>(sums + kPlaces * sums_stride(r));
        Bfloat16* const zeros = turned + kPlaces * 2 * turned_stride(r);
        for (int64_t c = 0; c < r.channels; ++c) zeros[c] = 0;
        const int64_t end = groups * (thread + 1) / r.threads;
        for (int64_t group = groups * thread / r.threads; group < end; group += r.block) {
            const int64_t first = group * kTiles, last = (group + r.block < end ? group + r.block : end) * kTiles;
            const int64_t count = (last < tiles ? last : tiles) - first;
            for (int64_t t = 0; t < count; ++t)
                turn_tile(r, tile_of(r, first + t), zeros, turned + t * r.channels, 2 * turned_stride(r));
            int64_t channel = 0;
            for (; channel + kPieces * kLanes <= r.out_channels; channel += kPieces * kLanes)
                channels_of_block<kPieces>(r, first, count, channel, turned, sums);
            if (channel < r.out_channels) channels_of_block<1>(r, first, count, channel, turned, sums);
        }
    }
}

}  // namespace
