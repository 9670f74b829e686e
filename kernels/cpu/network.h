// Rectifiers and max pooling inside a network, see network.py for the formulas.
//
// Tensors are rows of channels, float32 or bfloat16. All of these are bound by memory, so vectors hold eight
// channels on every instruction set, as many as a byte of a mask has bits. Rows are shared among threads, and
// no two threads write to the same row, so bits do not depend on the number of threads.

#pragma once

#include "kernels.h"
#include "vectors.h"

namespace {

using cnnvis_fast::channels;
using cnnvis_fast::mask_bytes;
using cnnvis_fast::Part;
using cnnvis_fast::Pool;
using cnnvis_fast::Rectify;
using cnnvis_fast::RectifyBackward;
using std::int64_t;
using std::uint8_t;

constexpr int kEight = 8;
constexpr int kNowhere = 255;
typedef float Eight __attribute__((vector_size(32)));
typedef std::int32_t EightIntegers __attribute__((vector_size(32)));
typedef std::uint32_t EightWords __attribute__((vector_size(32)));
typedef std::uint16_t EightHalves __attribute__((vector_size(16)));

// Pooling needs no bits of masks, so its vectors are as wide as the instruction set's.
typedef uint8_t Bytes __attribute__((vector_size(kLanes)));
typedef std::uint32_t Words __attribute__((vector_size(4 * kLanes)));

inline Floats floats(const float* from) { return load<Floats>(from); }
inline Floats floats(const Bfloat16* from) {
    return bits<Floats>(__builtin_convertvector(load<Halves>(from), Words) << 16);
}

// GCC takes a straight conversion between bytes and words apart, lane by lane; by way of halves it does not.
inline Integers widened(Bytes bytes) {
    return bits<Integers>(__builtin_convertvector(__builtin_convertvector(bytes, Halves), Words));
}
inline Bytes narrowed(Integers integers) {
    return __builtin_convertvector(__builtin_convertvector(integers, Halves), Bytes);
}

inline Eight eight(const float* from) { return load<Eight>(from); }
inline Eight eight(const Bfloat16* from) {
    return bits<Eight>(__builtin_convertvector(load<EightHalves>(from), EightWords) << 16);
}

inline void store_eight(float* to, Eight value) { store(to, value); }
inline void store_eight(Bfloat16* to, Eight value) {
    const EightIntegers raw = bits<EightIntegers>(value);
    const EightIntegers rounded = (raw + 0x7fff + ((raw >> 16) & 1)) >> 16;  // to nearest, ties to even
    const EightIntegers kept = value == value ? rounded : EightIntegers{} + 0x7fc0;
    store(to, __builtin_convertvector(kept, EightHalves));
}

// The same value as if it had been stored and read again.
inline Eight as_stored(float, Eight value) { return value; }
inline Eight as_stored(Bfloat16, Eight value) {
    Bfloat16 kept[kEight];
    store_eight(kept, value);
    return eight(kept);
}

inline void store_one(float* to, float value) { *to = value; }
inline void store_one(Bfloat16* to, float value) {
    const std::uint32_t raw = bits<std::uint32_t>(value);
    *to = value == value ? static_cast<Bfloat16>((raw + 0x7fff + ((raw >> 16) & 1)) >> 16) : 0x7fc0;
}

// The sign of each lane as one bit.
inline uint8_t signs(EightIntegers lanes) {
#if defined(__AVX2__)
    return static_cast<uint8_t>(_mm256_movemask_ps(bits<__m256>(lanes)));
#elif defined(__SSE2__)
    __m128 halves[2];
    __builtin_memcpy(halves, &lanes, sizeof halves);
    return static_cast<uint8_t>(_mm_movemask_ps(halves[0]) | _mm_movemask_ps(halves[1]) << 4);
#else
    unsigned all = 0;
    for (int lane = 0; lane < kEight; ++lane) all |= (lanes[lane] < 0 ? 1u : 0u) << lane;
    return static_cast<uint8_t>(all);
#endif
}

inline EightIntegers lanes_of(uint8_t byte) {
    const EightIntegers places = {1, 2, 4, 8, 16, 32, 64, 128};
    return ((EightIntegers{} + byte) & places) != 0;
}

// A part of a row. `Made` says whether y is written, `Sum` whether there is another term.
template <class Element, bool Made, bool Sum>
void rectify_row(const Element* x, const Element* other, Element* y, uint8_t* mask, int64_t count) {
    int64_t c = 0;
    for (; c + kEight <= count; c += kEight) {
        Eight value = eight(x + c);
        if constexpr (Sum) value = as_stored(Element{}, value + eight(other + c));
        const EightIntegers off = value <= 0.0f;
        if constexpr (Made) store_eight(y + c, off ? Eight{} : value);
        mask[c / kEight] = static_cast<uint8_t>(~signs(off));
    }
    if (c == count) return;
    unsigned bits = 0;
    for (int lane = 0; c + lane < count; ++lane) {
        float value = to_float(x[c + lane]);
        if constexpr (Sum) {
            Element sum;
            store_one(&sum, value + to_float(other[c + lane]));
            value = to_float(sum);
        }
        const bool off = value <= 0.0f;
        if constexpr (Made) store_one(y + c + lane, off ? 0.0f : value);
        bits |= (off ? 0u : 1u) << lane;
    }
    mask[c / kEight] = static_cast<uint8_t>(bits);
}

// All parts of a row before the next: one part after the other would read and write half rows, which the
// CPU's prefetching does badly.
template <class Element, bool Made, bool Sum>
void rectify_rows(const Rectify& r) {
    const int64_t y_stride = channels(r.part, r.parts), mask_stride = mask_bytes(r.part, r.parts);
#pragma omp parallel for schedule(static) num_threads(r.threads)
    for (int64_t row = 0; row < r.rows; ++row) {
        const Element* other = Sum ? static_cast<const Element*>(r.other) + row * r.other_stride : nullptr;
        Element* y = Made ? static_cast<Element*>(r.y) + row * y_stride : nullptr;
        uint8_t* mask = r.mask + row * mask_stride;
        for (int k = 0; k < r.parts; ++k) {
            const Part& part = r.part[k];
            const Element* x = static_cast<const Element*>(part.x) + row * part.stride;
            rectify_row<Element, Made, Sum>(x, other, y, mask, part.channels);
            if constexpr (Sum) other += part.channels;
            if constexpr (Made) y += part.channels;
            mask += (part.channels + 7) / 8;
        }
    }
}

template <class Element>
void rectify_as(const Rectify& r) {
    if (!r.y) return rectify_rows<Element, false, false>(r);
    r.other ? rectify_rows<Element, true, true>(r) : rectify_rows<Element, true, false>(r);
}

void rectify(const Rectify& r) { r.bfloat16 ? rectify_as<Bfloat16>(r) : rectify_as<float>(r); }

template <class Element, bool Sum>
void rectify_backward_row(const Element* g, const Element* other, const uint8_t* mask, Element* dx, int64_t count) {
    int64_t c = 0;
    for (; c + kEight <= count; c += kEight) {
        Eight value = eight(g + c);
        if constexpr (Sum) value = value + eight(other + c);
        store_eight(dx + c, lanes_of(mask[c / kEight]) ? value : Eight{});
    }
    for (int lane = 0; c + lane < count; ++lane) {
        float value = to_float(g[c + lane]);
        if constexpr (Sum) value += to_float(other[c + lane]);
        store_one(dx + c + lane, mask[c / kEight] >> lane & 1 ? value : 0.0f);
    }
}

template <class Element, bool Sum>
void rectify_backward_rows(const RectifyBackward& r) {
    const int64_t mask_stride = mask_bytes(r.part, r.parts);
#pragma omp parallel for schedule(static) num_threads(r.threads)
    for (int64_t row = 0; row < r.rows; ++row) {
        const Element* g = static_cast<const Element*>(r.g) + row * r.g_stride;
        const Element* other = Sum ? static_cast<const Element*>(r.other) + row * r.other_stride : nullptr;
        const uint8_t* mask = r.mask + row * mask_stride;
        for (int k = 0; k < r.parts; ++k) {
            const Part& part = r.part[k];
            Element* dx = static_cast<Element*>(const_cast<void*>(part.x)) + row * part.stride;
            rectify_backward_row<Element, Sum>(g, other, mask, dx, part.channels);
            g += part.channels;
            if constexpr (Sum) other += part.channels;
            mask += (part.channels + 7) / 8;
        }
    }
}

void rectify_backward(const RectifyBackward& r) {
    if (r.bfloat16)
        r.other ? rectify_backward_rows<Bfloat16, true>(r) : rectify_backward_rows<Bfloat16, false>(r);
    else
        r.other ? rectify_backward_rows<float, true>(r) : rectify_backward_rows<float, false>(r);
}

// Which taps of a window at `out` lie in the picture: [first, end).
struct Taps {
    int first = 0, end = 0;
    Taps(int64_t out, int64_t size, int kernel, int stride, int padding, int dilation) : end(kernel) {
        const int64_t origin = out * stride - padding;
        while (first < end && origin + first * dilation < 0) ++first;
        while (end > first && origin + (end - 1) * dilation >= size) --end;
    }
};

// What a window looks like from its first tap on: kernel, where its rows and columns lie, and its places.
template <class Element>
struct Window {
    int rows, columns;
    const Element* const* row;
    int64_t left, right;  // of the first column, and from column to column
    int start, line;      // place of the first tap, and of each row after the one before
};

// Keeps the larger of two, the first of equal ones, and its place; NaN counts as the largest.
inline void keep_larger(Floats value, int where, Floats& best, Integers& place) {
    const Integers better = (value > best) | (value != value);
    best = better ? value : best;
    place = better ? Integers{} + where : place;
}

// A maximum behind a rectifier.
inline void rectify_maximum(Floats& best, Integers& place) {
    const Integers off = best <= 0.0f;
    best = off ? Floats{} : best;
    place = off ? Integers{} + kNowhere : place;
}

// Maxima of a window, in vectors from c on; `Side` rows and columns where the compiler may unroll, else 0.
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

// A row of pooled pixels; row_of(i) tells where the i-th row of what is pooled lies.
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
        const int64_t image = row / p.out_height;
        pool_row(p, row % p.out_height, [&](int64_t i) { return x + (image * p.height + i) * p.width * p.channels; },
                 static_cast<Element*>(p.y) + row * out, p.place + row * out);
    }
}

void max_pool(const Pool& p) { p.bfloat16 ? max_pool_as<Bfloat16>(p) : max_pool_as<float>(p); }

// Which windows reach a pixel: outputs [first, end). With dilation some of them step over it.
struct Windows {
    int64_t first, end;
    Windows(int64_t at, int64_t out, int kernel, int stride, int padding, int dilation) {
        const int64_t last = at + padding, before = last - static_cast<int64_t>(dilation) * (kernel - 1);
        first = before <= 0 ? 0 : (before + stride - 1) / stride;
        end = last / stride + 1 < out ? last / stride + 1 : out;
    }
};

// What a window's gradient gives to channels from one on: itself where `place` names the tap.
inline Floats given(const float* dy, const uint8_t* place, int tap) {
#if defined(__AVX512BW__)
    const __mmask16 here = _mm_cmpeq_epi8_mask(load<__m128i>(place), _mm_set1_epi8(static_cast<char>(tap)));
    return bits<Floats>(_mm512_maskz_loadu_ps(here, dy));
#else
    return widened(load<Bytes>(place)) == tap ? floats(dy) : Floats{};
#endif
}
inline Floats given(const Bfloat16* dy, const uint8_t* place, int tap) {
#if defined(__AVX512BW__)
    const __mmask16 here = _mm_cmpeq_epi8_mask(load<__m128i>(place), _mm_set1_epi8(static_cast<char>(tap)));
    return bits<Floats>(_mm512_slli_epi32(_mm512_maskz_cvtepu16_epi32(here, load<__m256i>(dy)), 16));
#else
    return widened(load<Bytes>(place)) == tap ? floats(dy) : Floats{};
#endif
}

// A pixel gathers from the windows that reach it, so that nothing is written twice.
template <class Element>
void pool_backward_row(const Pool& p, int64_t image, int64_t down, Element* to) {
    const Element* dy = static_cast<const Element*>(p.x);
    const int64_t channels = p.channels;
    const Windows rows(down, p.out_height, p.kernel[0], p.stride[0], p.padding[0], p.dilation[0]);
    const int64_t reach = p.dilation[1] * (p.kernel[1] - 1);
    int64_t first = 0, end = 0;  // windows that reach a pixel move on with it
    for (int64_t right = 0; right < p.width; ++right, to += channels) {
        while (end < p.out_width && end * p.stride[1] <= right + p.padding[1]) ++end;
        while (first < end && first * p.stride[1] + reach < right + p.padding[1]) ++first;
        int64_t window[kNowhere];  // where each window lies, and the pixel's place in it
        int tap[kNowhere], count = 0;
        for (int64_t i = rows.first; i < rows.end; ++i) {
            int across = static_cast<int>(down + p.padding[0] - i * p.stride[0]);
            if (p.dilation[0] > 1) {  // a division takes as long as all that a vector of channels needs
                if (across % p.dilation[0]) continue;
                across /= p.dilation[0];
            }
            for (int64_t j = first; j < end; ++j) {
                int along = static_cast<int>(right + p.padding[1] - j * p.stride[1]);
                if (p.dilation[1] > 1) {
                    if (along % p.dilation[1]) continue;
                    along /= p.dilation[1];
                }
                window[count] = ((image * p.out_height + i) * p.out_width + j) * channels;
                tap[count++] = across * p.kernel[1] + along;
            }
        }
        int64_t c = 0;
        for (; c + kLanes <= channels; c += kLanes) {
            Floats sum{};
            for (int k = 0; k < count; ++k) sum = sum + given(dy + window[k] + c, p.place + window[k] + c, tap[k]);
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
