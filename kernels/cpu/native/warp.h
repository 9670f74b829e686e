// render and render_backward under an affine warp; docs/warp-adjoint.md derives them.
//
// An output pixel reads four neighbors, so the picture's values are first written to cache pixel by pixel, four floats
// each: a neighbor is then one load for all channels. The adjoint adds to the same four neighbors, first those of every
// other output pixel of a vector. A band of input rows belongs to one task, which passes over all output pixels that
// reach it: no two threads add to the same sum, and on one instruction set every sum has one order.
//
// Reading twelve planes with the gather instruction instead was not tried: four loads of one pixel each touch fewer
// cache lines. An inverse warp would not be the adjoint.

#pragma once

#include "render.h"
#include "threads.h"

namespace {

// Where kLanes output pixels of a row read: the index and row of their upper left neighbors, and their distances right
// and down from it.
struct Source {
    std::int32_t pixel[kLanes], row[kLanes];
    float right[kLanes], down[kLanes];
};

// One axis of an picture: its size and the step to the next neighbor (0 if there is only one pixel).
struct Axis {
    float size;
    std::int32_t step;

    explicit Axis(int64_t pixels) : size(static_cast<float>(pixels)), step(pixels > 1) {}

    // Reflects positions at the outer edges of the border pixels, -1/2 and size - 1/2, until they lie between them.
    // The comparisons are written so that every position, even NaN, ends up inside the picture.
    // `shifted` positions count from the outer edge: those of pixel centers plus 1/2.
    Floats inside(Floats shifted) const {
        const float period = 2.0f * size, last = size - 1.0f;
        const Floats turns = shifted * (1.0f / period);  // off by one rounding at a border, where both sides agree
        const Floats whole = __builtin_convertvector(__builtin_convertvector(turns, Integers), Floats);
        const Floats folded = shifted - period * (whole > turns ? whole - 1.0f : whole);
        Floats mirrored = (folded < period - folded ? folded : period - folded) - 0.5f;
        mirrored = mirrored > 0.0f ? mirrored : Floats{};
        return mirrored < last ? mirrored : all(last);
    }

    // Returns the first of the two neighbors, so that a second one exists.
    Integers neighbor(Floats inside) const {
        const Integers floor = __builtin_convertvector(inside, Integers);  // never negative
        const Integers most = Integers{} + (static_cast<std::int32_t>(size) - 1 - step);
        return floor < most ? floor : most;
    }
};

class Warp {
public:
    Warp(const Pictures& pictures, int64_t picture)
        : columns_(pictures.width), rows_(pictures.height), width_(pictures.width), height_(pictures.height) {
        // Converts coordinates in [-1, 1] to pixels, whose centers are at (2 j + 1) / W - 1.
        const float* theta = pictures.affine + 6 * picture;
        const double w = static_cast<double>(width_), h = static_cast<double>(height_);
        across_[0] = theta[0];
        across_[1] = theta[1] * w / h;
        across_[2] = theta[2] * w / 2 + (w - 1) / 2;
        down_[0] = theta[3] * h / w;
        down_[1] = theta[4];
        down_[2] = theta[5] * h / 2 + (h - 1) / 2;
    }

    int64_t next_row() const { return rows_.step * width_; }
    int64_t next_column() const { return columns_.step; }

    // Computes the sources of pixels (row, column), (row, column + 1), ...
    void find(int64_t row, int64_t column, Source& source) const {
        const Floats j = counting() + static_cast<float>(column);
        const Floats x = columns_.inside(j * static_cast<float>(across_[0]) + start(across_, row));
        const Floats y = rows_.inside(j * static_cast<float>(down_[0]) + start(down_, row));
        const Integers left = columns_.neighbor(x), top = rows_.neighbor(y);
        store(source.pixel, top * static_cast<std::int32_t>(width_) + left);
        store(source.row, top);
        store(source.right, x - __builtin_convertvector(left, Floats));
        store(source.down, y - __builtin_convertvector(top, Floats));
    }

    // Computes the input rows [first, last) that output row `row` reads: all of them where it is reflected.
    void reach(int64_t row, int64_t& first, int64_t& last) const {
        const double one = start(down_, row) - 0.5, other = one + down_[0] * static_cast<double>(width_ - 1);
        const double low = (one < other ? one : other) - 1, high = (one < other ? other : one) + 2;
        const bool plain = low >= 0 && high <= static_cast<double>(height_);  // false for NaN
        first = plain ? static_cast<int64_t>(low) : 0;
        last = plain ? static_cast<int64_t>(high) + 1 : height_;
        last = smaller(last, height_);
    }

private:
    // Returns the position that column 0 of an output row reads, counted from the outer edge.
    float start(const double (&axis)[3], int64_t row) const {
        const double w = static_cast<double>(width_), h = static_cast<double>(height_);
        return static_cast<float>(axis[2] + 0.5 + axis[1] * (static_cast<double>(row) + 0.5 - h / 2) +
                                  axis[0] * (0.5 - w / 2));
    }

    Axis columns_, rows_;
    int64_t width_, height_;
    double across_[3], down_[3];  // position = [0] (j + 1/2 - W/2) + [1] (i + 1/2 - H/2) + [2]
};

// Two neighbors in a row: two pixels of four floats each.
typedef float Neighbors __attribute__((vector_size(32)));

inline Neighbors beside(Pixel left, Pixel right) {
#if defined(__AVX2__)
    return bits<Neighbors>(_mm256_set_m128(bits<__m128>(right), bits<__m128>(left)));
#else
    const Pixel both[2] = {left, right};
    return load<Neighbors>(both);
#endif
}

inline float* scratch_of_thread(const Pictures& pictures) {
    return pictures.scratch + thread_number() * scratch_floats(pictures);
}

// Writes `count` preprocessed pixels, four floats each, and some beyond. The weights of four neighbors add up to one,
// so the mean may be subtracted before they are mixed.
template <int C>
inline void fill_pixels(const Colors<C>& colors, const float* z, int64_t plane, int64_t count, float* pixels) {
    for (int64_t done = 0; done < count; done += kLanes) {
        Floats s[kFour] = {};
        shade<C>(colors, z + done, plane, count - done, s);
        for (int c = 0; c < C; ++c) s[c] = (s[c] - colors.mean[c]) * colors.scale[c];
        to_pixels(s, pixels + kFour * done);
    }
}

template <int C, class Element>
void render_affine(const Render& r) {
    const Colors<C> colors(r.color, r.mean, r.std);
    const int64_t height = r.pictures.height, width = r.pictures.width, plane = height * width;
    for_bands(r.pictures, [&](int64_t picture, int64_t first, int64_t last) {
        const Warp warp(r.pictures, picture);
        const float* z = r.z + picture * C * plane;
        Element* x = static_cast<Element*>(r.x) + picture * C * plane;
        float* pixels = scratch_of_thread(r.pictures);
        int64_t from = height, to = 0;
        for (int64_t row = first; row < last; ++row) {
            int64_t low, high;
            warp.reach(row, low, high);
            from = smaller(from, low);
            to = larger(to, high);
        }
        fill_pixels<C>(colors, z + from * width, plane, (to - from) * width, pixels + 4 * from * width);
        const int64_t right = kFour * warp.next_column(), down = kFour * warp.next_row();
        for (int64_t row = first; row < last; ++row) {
            for (int64_t column = 0; column < width; column += kLanes) {
                Source source;
                warp.find(row, column, source);
                float found[kLanes][4];
                for (int lane = 0; lane < kLanes; ++lane) {  // lanes past the row's end read inside, too
                    const float* corner = pixels + kFour * static_cast<int64_t>(source.pixel[lane]);
                    const Pixel a = load<Pixel>(corner), b = load<Pixel>(corner + right);
                    const Pixel c = load<Pixel>(corner + down), d = load<Pixel>(corner + down + right);
                    const Pixel above = a + (b - a) * source.right[lane];
                    const Pixel below = c + (d - c) * source.right[lane];
                    store(found[lane], above + (below - above) * source.down[lane]);
                }
                write_pixels<C>(found[0], width - column, x + (row * width + column) * C);
            }
        }
    });
}

template <int C, class Element>
void render_backward_affine(const RenderBackward& r) {
    const Colors<C> colors(r.color, nullptr, r.std);
    const int64_t height = r.pictures.height, width = r.pictures.width, plane = height * width;
    for_bands(r.pictures, [&](int64_t picture, int64_t first, int64_t last) {
        const Warp warp(r.pictures, picture);
        const Element* g = static_cast<const Element*>(r.g) + picture * C * plane;
        float* sums = scratch_of_thread(r.pictures);  // for the band's pixels, four floats each, and one more
        __builtin_memset(sums, 0, sizeof(float) * kFour * ((last - first) * width + 1));
        const int64_t down = kFour * warp.next_row();
        for (int64_t row = 0; row < height; ++row) {
            int64_t low, high;
            warp.reach(row, low, high);
            if (high <= first || low >= last) continue;
            const bool within = first <= low && high <= last;
            for (int64_t column = 0; column < width; column += kLanes) {
                float gradient[kFour * kLanes];
                read_pixels<C>(g + (row * width + column) * C, width - column, gradient);
                Source source;
                warp.find(row, column, source);
                const int64_t count = smaller(kLanes, width - column);
                // Neighboring lanes add to the same pixels, so every other lane goes first: a written value has left
                // the store buffer before it is read.
                for (int64_t turn = 0; turn < 2 * kLanes; turn += 2) {
                    const int64_t lane = turn < kLanes ? turn : turn - kLanes + 1;
                    if (lane >= count) continue;
                    const Pixel value = load<Pixel>(gradient + kFour * lane);
                    const Pixel below = value * source.down[lane], above = value - below;
                    const Pixel above_right = above * source.right[lane], below_right = below * source.right[lane];
                    float* corner = sums + kFour * (source.pixel[lane] - first * width);
                    const int64_t top = source.row[lane], bottom = top + (down != 0);
                    if (within || (first <= top && top < last))
                        store(corner, load<Neighbors>(corner) + beside(above - above_right, above_right));
                    corner += down;
                    if (within || (first <= bottom && bottom < last))
                        store(corner, load<Neighbors>(corner) + beside(below - below_right, below_right));
                }
            }
        }
        const float* z = r.z + picture * C * plane + first * width;
        float* dz = r.dz + picture * C * plane + first * width;
        const int64_t count = (last - first) * width;
        for (int64_t done = 0; done < count; done += kLanes) {
            Floats s[kFour], ds[kFour];
            shade<C>(colors, z + done, plane, count - done, s);
            to_planes(sums + kFour * done, ds);
            for (int c = 0; c < C; ++c) ds[c] = ds[c] * colors.scale[c];
            unshade<C>(colors, s, ds, count - done, dz + done, plane);
        }
    });
}

}  // namespace
