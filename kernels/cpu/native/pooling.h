// Max pooling inside a network; the formulas are in ops/pooling.py.
//
// Tensors are rows of channels, float32 or bfloat16. The threads share the rows of pixels, and each row is written by
// one thread, so the bits do not depend on the number of threads.

#pragma once

#include "kernels.h"
#include "vectors.h"

namespace {

using cnnvis_fast::Pool;
using std::int64_t;
using std::uint8_t;

constexpr int kNowhere = 255;  // the place of a maximum that the rectifier set to zero

// The taps [first, end) of the window at `out` that lie inside the input.
struct Taps {
    int first = 0, end = 0;
    Taps(int64_t out, int64_t size, int kernel, int stride, int padding, int dilation) : end(kernel) {
        const int64_t origin = out * stride - padding;
        while (first < end && origin + first * dilation < 0) ++first;
        while (end > first && origin + (end - 1) * dilation >= size) --end;
    }
};

// The part of a window inside the input: its size, the addresses of its rows and columns, and its places.
template <class Element>
struct Window {
    int rows, columns;
    const Element* const* row;
    int64_t left, right;  // offset of the first column; step between columns
    int start, line;      // place of the first tap; step between rows
};

// Keeps the larger of two values and its place, the first of equal ones; NaN counts as the largest.
inline void keep_larger(Floats value, int where, Floats& best, Integers& place) {
    const Integers better = (value > best) | (value != value);
    best = better ? value : best;
    place = better ? Integers{} + where : place;
}

// Rectifies a maximum: one that is not positive becomes 0, with place kNowhere.
inline void rectify_maximum(Floats& best, Integers& place) {
    const Integers off = best <= 0.0f;
    best = off ? Floats{} : best;
    place = off ? Integers{} + kNowhere : place;
}

// Computes a window's maxima for whole vectors of channels and returns the number of channels done. `Side` is the
// number of rows and columns where the compiler may unroll, else 0.
template <class Element, int Side>
int64_t maxima(const Window<Element>& window, bool rectified, Element* y, uint8_t* places, int64_t channels) {
    const int rows = Side ? Side : window.rows, columns = Side ? Side : window.columns;
    int64_t c = 0;
    for (; c + kLanes <= channels; c += kLanes) {
        Floats best = all(-__builtin_inff());
        Integers place = Integers{} + window.start;
        for (int i = 0; i < rows; ++i)
            for (int j = 0; j < columns; ++j) {
                const Floats value = floats(window.row[i] + window.left + j * window.right + c);
                keep_larger(value, window.start + i * window.line + j, best, place);
            }
        if (rectified) rectify_maximum(best, place);
        store(y + c, narrowed_as(Element{}, best));
        store(places + c, narrowed(place));
    }
    return c;
}

// Computes a row of pooled pixels; row_of(i) returns the address of the input's i-th row.
template <class Element, class RowOf>
void pool_row(const Pool& p, int64_t down, const RowOf& row_of, Element* y, uint8_t* places) {
    const int64_t channels = p.channels;
    const Taps rows(down, p.height, p.kernel[0], p.stride[0], p.padding[0], p.dilation[0]);
    const Element* row[kNowhere];
    for (int i = rows.first; i < rows.end; ++i)
        row[i - rows.first] = row_of(down * p.stride[0] - p.padding[0] + i * p.dilation[0]);
    for (int64_t right = 0; right < p.out_width; ++right, y += channels, places += channels) {
        const Taps columns(right, p.width, p.kernel[1], p.stride[1], p.padding[1], p.dilation[1]);
        const int start = rows.first * p.kernel[1] + columns.first;
        const int64_t left = right * p.stride[1] - p.padding[1] + columns.first * p.dilation[1];
        const Window<Element> window{rows.end - rows.first,   columns.end - columns.first, row,        left * channels,
                                     p.dilation[1] * channels, start,                       p.kernel[1]};
        const int side = window.rows == window.columns ? window.rows : 0;
        int64_t c = side == 3   ? maxima<Element, 3>(window, p.rectified, y, places, channels)
                    : side == 2 ? maxima<Element, 2>(window, p.rectified, y, places, channels)
                                : maxima<Element, 0>(window, p.rectified, y, places, channels);
        for (; c < channels; ++c) {
            float best = -__builtin_inff();
            int place = start;
            for (int i = 0; i < window.rows; ++i)
                for (int j = 0; j < window.columns; ++j) {
                    const float value = to_float(row[i][window.left + j * window.right + c]);
                    if (value > best || value != value) best = value, place = start + i * window.line + j;
                }
            const bool off = p.rectified && best <= 0.0f;
            store_one(y + c, off ? 0.0f : best);
            places[c] = static_cast<uint8_t>(off ? kNowhere : place);
        }
    }
}

template <class Element>
void max_pool_as(const Pool& p) {
    const Element* x = static_cast<const Element*>(p.x);
    const int64_t out = p.out_width * p.channels;
#pragma omp parallel for schedule(static) num_threads(p.threads)
    for (int64_t row = 0; row < p.batch * p.out_height; ++row) {
        const int64_t picture = row / p.out_height;
        pool_row(p, row % p.out_height, [&](int64_t i) { return x + (picture * p.height + i) * p.width * p.channels; },
                 static_cast<Element*>(p.y) + row * out, p.place + row * out);
    }
}

void max_pool(const Pool& p) { p.bfloat16 ? max_pool_as<Bfloat16>(p) : max_pool_as<float>(p); }

// The windows, outputs [first, end), that span a pixel. With dilation some of them skip it.
struct Windows {
    int64_t first, end;
    Windows(int64_t at, int64_t out, int kernel, int stride, int padding, int dilation) {
        const int64_t last = at + padding, before = last - static_cast<int64_t>(dilation) * (kernel - 1);
        first = before <= 0 ? 0 : (before + stride - 1) / stride;
        end = last / stride + 1 < out ? last / stride + 1 : out;
    }
};

// Loads a window's gradient for a vector of channels, with zeros where `place` is not the tap.
inline Floats gradient_at_tap(const float* dy, const uint8_t* place, int tap) {
#if defined(__AVX512BW__)
    const __mmask16 here = _mm_cmpeq_epi8_mask(load<__m128i>(place), _mm_set1_epi8(static_cast<char>(tap)));
    return bits<Floats>(_mm512_maskz_loadu_ps(here, dy));
#else
    return widened(load<Bytes>(place)) == tap ? floats(dy) : Floats{};
#endif
}
inline Floats gradient_at_tap(const Bfloat16* dy, const uint8_t* place, int tap) {
#if defined(__AVX512BW__)
    const __mmask16 here = _mm_cmpeq_epi8_mask(load<__m128i>(place), _mm_set1_epi8(static_cast<char>(tap)));
    return bits<Floats>(_mm512_slli_epi32(_mm512_maskz_cvtepu16_epi32(here, load<__m256i>(dy)), 16));
#else
    return widened(load<Bytes>(place)) == tap ? floats(dy) : Floats{};
#endif
}

// Computes a row of the input gradient. Each pixel gathers from the windows that reach it, so it is written once.
template <class Element>
void pool_backward_row(const Pool& p, int64_t picture, int64_t down, Element* to) {
    const Element* dy = static_cast<const Element*>(p.x);
    const int64_t channels = p.channels;
    const Windows rows(down, p.out_height, p.kernel[0], p.stride[0], p.padding[0], p.dilation[0]);
    const int64_t reach = p.dilation[1] * (p.kernel[1] - 1);
    int64_t first = 0, end = 0;  // the windows that reach the pixel
    for (int64_t right = 0; right < p.width; ++right, to += channels) {
        while (end < p.out_width && end * p.stride[1] <= right + p.padding[1]) ++end;
        while (first < end && first * p.stride[1] + reach < right + p.padding[1]) ++first;
        int64_t window[kNowhere];  // each window's offset, and the pixel's place in the window
        int tap[kNowhere], count = 0;
        for (int64_t i = rows.first; i < rows.end; ++i) {
            int across = static_cast<int>(down + p.padding[0] - i * p.stride[0]);
            if (p.dilation[0] > 1) {  // a division costs as much as a vector of channels
                if (across % p.dilation[0]) continue;
                across /= p.dilation[0];
            }
            for (int64_t j = first; j < end; ++j) {
                int along = static_cast<int>(right + p.padding[1] - j * p.stride[1]);
                if (p.dilation[1] > 1) {
                    if (along % p.dilation[1]) continue;
                    along /= p.dilation[1];
                }
                window[count] = ((picture * p.out_height + i) * p.out_width + j) * channels;
                tap[count++] = across * p.kernel[1] + along;
            }
        }
        int64_t c = 0;
        for (; c + kLanes <= channels; c += kLanes) {
            Floats sum{};
            for (int k = 0; k < count; ++k)
                sum = sum + gradient_at_tap(dy + window[k] + c, p.place + window[k] + c, tap[k]);
            store(to + c, Converted<Element>::from(sum));
        }
        for (; c < channels; ++c) {
            float sum = 0;
            for (int k = 0; k < count; ++k)
                if (p.place[window[k] + c] == tap[k]) sum += to_float(dy[window[k] + c]);
            store_one(to + c, sum);
        }
    }
}

template <class Element>
void max_pool_backward_as(const Pool& p) {
#pragma omp parallel for schedule(static) num_threads(p.threads)
    for (int64_t row = 0; row < p.batch * p.height; ++row)
        pool_backward_row(p, row / p.height, row % p.height,
                          static_cast<Element*>(p.y) + row * p.width * p.channels);
}

void max_pool_backward(const Pool& p) {
    p.bfloat16 ? max_pool_backward_as<Bfloat16>(p) : max_pool_backward_as<float>(p);
}

}  // namespace
