// 3 x 3 convolutions by Winograd's minimal filtering F(2 x 2, 3 x 3) (ops/winograd.py, docs/winograd.md).
//
// Tiles of 4 x 4 pixels are transformed to 16 numbers per channel, and so are the filters, ahead of time. A matrix
// product for each of the 16 places, with 2.25 times fewer multiplications than the convolution, then yields 2 x 2
// pixels per tile. A thread takes the tiles in blocks whose transformed pixels stay in its cache. For a few output
// channels at a time it computes all 16 products of the block, whose sums stay in cache too, and transforms them back
// to pixels. A tile's sums run over the channels in one order, whatever the tile's neighbors are, so the bits depend
// on neither the batch nor the threads.
//
// An op right before or behind the convolution needs no pass of its own: a rectifier's mask or a pooling's places gate
// the pixels as they are read, and the 2 x 2 pixels of a tile are a window of the pooling that most networks have.

#pragma once

#include "convolution_output.h"
#include "input_gradient.h"

namespace {

using cnnvis_fast::kMostGroups;
using cnnvis_fast::kPanel;
using cnnvis_fast::kPlaces;
using cnnvis_fast::Winograd;

constexpr int kTiles = kLanes == 16 ? 14 : 4;  // at a time, as many as the registers have sums for
constexpr int kPieces = 2;                     // vectors of output channels at a time

struct Tile {
    int64_t picture, y, x;  // the first pixel that the tile writes
};

// Lists `count` tiles from `first` on.
inline void list_tiles(const Winograd& r, int64_t first, int64_t count, Tile* tile) {
    const int64_t across = (r.out_width + 1) / 2, down = (r.out_height + 1) / 2;
    Tile next{first / (across * down), first / across % down * 2, first % across * 2};
    for (int64_t t = 0; t < count; ++t) {
        tile[t] = next;
        if ((next.x += 2) < r.out_width) continue;
        next.x = 0;
        if ((next.y += 2) < r.out_height) continue;
        next.y = 0;
        ++next.picture;
    }
}

// The addresses of a tile's pixels, row by row, and of their gates; zeros beyond the edges.
struct Pixels {
    const Bfloat16* at[kPlaces];
    const uint8_t* gate[kPlaces];
};

enum class Gate { none, mask, place };

template <Gate G>
inline void find_pixels(const Winograd& r, const Tile& tile, const Bfloat16* zeros, Pixels& pixels) {
    const int64_t top = tile.y - r.padding[0], left = tile.x - r.padding[1];
    const int64_t height = G == Gate::place ? r.pooled_height : r.height;
    const int64_t width = G == Gate::place ? r.pooled_width : r.width;
    constexpr int kShift = G == Gate::place;  // the pixels of a window share what is read
    int64_t row[4], column[4];                // negative beyond the edges
    for (int i = 0; i < 4; ++i) {
        const int64_t y = (top + i) >> kShift, x = (left + i) >> kShift;
        row[i] = y >= 0 && y < height ? (tile.picture * height + y) * width : -1;
        column[i] = x < width ? x : -1;
    }
    for (int k = 0; k < kPlaces; ++k) {
        const bool inside = row[k / 4] >= 0 && column[k % 4] >= 0;
        const int64_t pixel = row[k / 4] + column[k % 4];
        pixels.at[k] = inside ? static_cast<const Bfloat16*>(r.x) + pixel * r.channels : zeros;
        if (G == Gate::none) continue;
        const int64_t bytes = G == Gate::place ? r.channels : r.channels / 8;
        pixels.gate[k] = inside ? r.gate + pixel * bytes : reinterpret_cast<const uint8_t*>(zeros);
    }
}

// Loads the channels from `c` on of the k-th pixel, with zeros where the gate is closed. A tile, and so its taps,
// begins at an even pixel, or at an odd one if the padding is odd.
template <Gate G>
inline Floats read_pixel(const Winograd& r, const Pixels& pixels, int k, int64_t c) {
    if constexpr (G == Gate::mask) return masked(pixels.at[k] + c, pixels.gate[k], c);
    if constexpr (G == Gate::place) {
        const int down = (k / 4 + r.padding[0]) & 1, right = (k % 4 + r.padding[1]) & 1;
        return gradient_at_tap(pixels.at[k] + c, pixels.gate[k] + c, 2 * down + right);
    }
    return floats(pixels.at[k] + c);
}

// Transforms four numbers in a line.
inline void transform_line(Floats a, Floats b, Floats c, Floats d, Floats* to) {
    to[0] = a - c;
    to[1] = b + c;
    to[2] = c - b;
    to[3] = b - d;
}

// Transforms up to kTiles tiles; `stride` is between places. Columns that a tile shares with the previous one are
// transformed once.
template <Gate G>
void transform_tiles(const Winograd& r, const Tile* tile, int64_t count, const Bfloat16* zeros, Bfloat16* to,
                int64_t stride) {
    Pixels pixels[kTiles];
    for (int64_t t = 0; t < count; ++t) find_pixels<G>(r, tile[t], zeros, pixels[t]);
    for (int64_t c = 0; c < r.channels; c += kLanes) {
        Floats column[4][4];
        for (int64_t t = 0; t < count; ++t) {
            auto read = [&](int k) { return read_pixel<G>(r, pixels[t], k, c); };
            auto transform_column = [&](int j) {
                transform_line(read(j), read(4 + j), read(8 + j), read(12 + j), column[j]);
            };
            if (t && tile[t].x) {
                for (int i = 0; i < 4; ++i) column[0][i] = column[2][i], column[1][i] = column[3][i];
            } else {
                transform_column(0);
                transform_column(1);
            }
            transform_column(2);
            transform_column(3);
            for (int i = 0; i < 4; ++i) {
                Floats transformed[4];
                transform_line(column[0][i], column[1][i], column[2][i], column[3][i], transformed);
                for (int j = 0; j < 4; ++j)
                    store(to + (4 * i + j) * stride + t * r.channels + c, to_bfloat16(transformed[j]));
            }
        }
    }
}

// Computes the sums over channels for `Pieces` vectors of output channels of kTiles tiles.
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

// Pools the pixels of a tile that lie inside the output, as `max_pool` does.
inline void pool_tile(const Winograd& r, const Tile& tile, Floats (&y)[2][2], int64_t channel) {
    const int64_t row = tile.y / 2, column = tile.x / 2;
    if (row >= r.pooled_height || column >= r.pooled_width) return;
    Floats best = all(-__builtin_inff());
    Integers place{};
    for (int i = 0; i < 2 && tile.y + i < r.out_height; ++i)
        for (int j = 0; j < 2 && tile.x + j < r.out_width; ++j) {
            const Floats value = rounded(r.bias ? y[i][j] + load<Floats>(r.bias + channel) : y[i][j]);
            keep_larger(value, 2 * i + j, best, place);
        }
    if (r.rectified) rectify_maximum(best, place);
    const int64_t at = ((tile.picture * r.pooled_height + row) * r.pooled_width + column) * r.out_channels + channel;
    store(static_cast<Bfloat16*>(r.y) + at, to_bfloat16(best));
    store(r.place + at, narrowed(place));
}

// Transforms the sums of one tile back to pixels and writes a vector of output channels; `stride` is between places.
void write_tile(const Winograd& r, const Tile& tile, const float* sums, int64_t stride, int64_t channel) {
    Floats rows[2][4];
    for (int j = 0; j < 4; ++j) {
        Floats m[4];
        for (int i = 0; i < 4; ++i) m[i] = load<Floats>(sums + (4 * i + j) * stride);
        rows[0][j] = m[0] + m[1] + m[2];
        rows[1][j] = m[1] - m[2] - m[3];
    }
    Floats y[2][2];
    for (int i = 0; i < 2; ++i) {
        const Floats* m = rows[i];
        y[i][0] = m[0] + m[1] + m[2];
        y[i][1] = m[1] - m[2] - m[3];
    }
    if (r.place) return pool_tile(r, tile, y, channel);
    for (int i = 0; i < 2 && tile.y + i < r.out_height; ++i)
        for (int j = 0; j < 2 && tile.x + j < r.out_width; ++j) {
            const int64_t at = ((tile.picture * r.out_height + tile.y + i) * r.out_width + tile.x + j) * r.out_channels;
            finish(y[i][j], r.bias, channel, r.out_channels, static_cast<Bfloat16*>(r.y) + at,
                   r.mask ? r.mask + at / 8 : nullptr);
        }
}

// Computes `Pieces` vectors of output channels, from `channel` on, for a block of tiles.
template <int Pieces>
void channels_of_block(const Winograd& r, const Tile* tile, int64_t count, int64_t channel, const Bfloat16* transformed,
                       float* sums) {
    const int64_t words = r.channels / 2 * kPanel;
    for (int place = 0; place < kPlaces; ++place) {
        const Word* weight[Pieces];
        for (int p = 0; p < Pieces; ++p) {
            const int64_t at = channel + p * kLanes;
            weight[p] = r.weight + (at / kPanel * kPlaces + place) * words + at % kPanel;
        }
        for (int64_t t = 0; t < count; t += kTiles)
            multiply<Pieces>(transformed + place * 2 * transformed_stride(r) + t * r.channels, r.channels, weight,
                             sums + place * sums_stride(r) + t * Pieces * kLanes);
    }
    for (int64_t t = 0; t < count; ++t)
        for (int p = 0; p < Pieces; ++p)
            write_tile(r, tile[t], sums + (t * Pieces + p) * kLanes, sums_stride(r), channel + p * kLanes);
}

template <Gate G>
void winograd_by(const Winograd& r) {
    const int64_t tiles = r.batch * ((r.out_height + 1) / 2) * ((r.out_width + 1) / 2);
    const int64_t groups = (tiles + kTiles - 1) / kTiles;
#pragma omp parallel for schedule(static) num_threads(r.threads)
    for (int thread = 0; thread < r.threads; ++thread) {
        float* const sums = r.scratch + thread * scratch_floats(r);
        Bfloat16* const transformed = reinterpret_cast<Bfloat16*>(sums + kPlaces * sums_stride(r));
        Bfloat16* const zeros = transformed + kPlaces * 2 * transformed_stride(r);
        for (int64_t c = 0; c < r.channels; ++c) zeros[c] = 0;
        const int64_t end = groups * (thread + 1) / r.threads;
        for (int64_t group = groups * thread / r.threads; group < end; group += r.block) {
            const int64_t first = group * kTiles, last = (group + r.block < end ? group + r.block : end) * kTiles;
            const int64_t count = (last < tiles ? last : tiles) - first;
            Tile tile[kMostGroups * kTiles];
            list_tiles(r, first, count, tile);
            for (int64_t t = 0; t < count; t += kTiles)
                transform_tiles<G>(r, tile + t, count - t < kTiles ? count - t : kTiles, zeros,
                                   transformed + t * r.channels, 2 * transformed_stride(r));
            int64_t channel = 0;
            for (; channel + kPieces * kLanes <= r.out_channels; channel += kPieces * kLanes)
                channels_of_block<kPieces>(r, tile, count, channel, transformed, sums);
            if (channel < r.out_channels) channels_of_block<1>(r, tile, count, channel, transformed, sums);
        }
        flush_stores();
    }
}

void winograd(const Winograd& r) {
    if (!r.gate) return winograd_by<Gate::none>(r);
    r.gated_by_place ? winograd_by<Gate::place>(r) : winograd_by<Gate::mask>(r);
}

}  // namespace
