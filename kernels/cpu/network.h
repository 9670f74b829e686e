// Rectifiers, max pooling and phases inside a network, see network.py for the formulas.
//
// Tensors are rows of channels, float32 or bfloat16. All of these are bound by memory, so vectors hold eight
// channels on every instruction set, as many as a byte of a mask has bits. Rows are shared among threads, and
// no two threads write to the same row, so bits do not depend on the number of threads.

#pragma once

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "kernels.h"
#include "vectors.h"

namespace {

using cnnvis_fast::Interleave;
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
typedef uint8_t EightBytes __attribute__((vector_size(8)));

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

// One row, or many that lie one behind the other. `Made` says whether y is written, `Sum` whether there is
// another term.
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

template <class Element, bool Made, bool Sum>
void rectify_rows(const Rectify& r) {
    const Element *x = static_cast<const Element*>(r.x), *other = static_cast<const Element*>(r.other);
    Element* y = static_cast<Element*>(r.y);
#pragma omp parallel for schedule(static) num_threads(r.threads)
    for (int64_t row = 0; row < r.rows; ++row)
        rectify_row<Element, Made, Sum>(x + row * r.x_stride, Sum ? other + row * r.other_stride : nullptr,
                                        Made ? y + row * r.y_stride : nullptr, r.mask + row * r.mask_stride,
                                        r.channels);
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
    const Element *g = static_cast<const Element*>(r.g), *other = static_cast<const Element*>(r.other);
    Element* dx = static_cast<Element*>(r.dx);
#pragma omp parallel for schedule(static) num_threads(r.threads)
    for (int64_t row = 0; row < r.rows; ++row)
        rectify_backward_row<Element, Sum>(g + row * r.g_stride, Sum ? other + row * r.other_stride : nullptr,
                                           r.mask + row * r.mask_stride, dx + row * r.dx_stride, r.channels);
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

template <class Element>
void max_pool_as(const Pool& p) {
    const Element* x = static_cast<const Element*>(p.x);
    Element* y = static_cast<Element*>(p.y);
    const int64_t channels = p.channels, row_stride = p.width * channels;
#pragma omp parallel for schedule(static) num_threads(p.threads)
    for (int64_t row = 0; row < p.batch * p.out_height; ++row) {
        const int64_t image = row / p.out_height, down = row % p.out_height;
        const Taps rows(down, p.height, p.kernel[0], p.stride[0], p.padding[0], p.dilation[0]);
        for (int64_t right = 0; right < p.out_width; ++right) {
            const Taps columns(right, p.width, p.kernel[1], p.stride[1], p.padding[1], p.dilation[1]);
            const Element* origin = x + image * p.height * row_stride +
                                    (down * p.stride[0] - p.padding[0]) * row_stride +
                                    (right * p.stride[1] - p.padding[1]) * channels;
            const int64_t at = (row * p.out_width + right) * channels;
            const int start = rows.first * p.kernel[1] + columns.first;
            int64_t c = 0;
            for (; c + kEight <= channels; c += kEight) {
                Eight best = Eight{} - __builtin_inff();
                EightIntegers place = EightIntegers{} + start;
                for (int i = rows.first; i < rows.end; ++i) {
                    const Element* line = origin + i * p.dilation[0] * row_stride + c;
                    for (int j = columns.first; j < columns.end; ++j) {
                        const Eight value = eight(line + j * p.dilation[1] * channels);
                        const EightIntegers better = (value > best) | (value != value);
                        best = better ? value : best;
                        place = better ? EightIntegers{} + (i * p.kernel[1] + j) : place;
                    }
                }
                if (p.rectified) {
                    const EightIntegers off = best <= 0.0f;
                    best = off ? Eight{} : best;
                    place = off ? EightIntegers{} + kNowhere : place;
                }
                store_eight(y + at + c, best);
                store(p.place + at + c, __builtin_convertvector(place, EightBytes));
            }
            for (; c < channels; ++c) {
                float best = -__builtin_inff();
                int place = start;
                for (int i = rows.first; i < rows.end; ++i)
                    for (int j = columns.first; j < columns.end; ++j) {
                        const float value =
                            to_float(origin[i * p.dilation[0] * row_stride + j * p.dilation[1] * channels + c]);
                        if (value > best || value != value) best = value, place = i * p.kernel[1] + j;
                    }
                const bool off = p.rectified && best <= 0.0f;
                store_one(y + at + c, off ? 0.0f : best);
                p.place[at + c] = static_cast<uint8_t>(off ? kNowhere : place);
            }
        }
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

// A pixel gathers from the windows that reach it, so that nothing is written twice.
template <class Element>
void max_pool_backward_as(const Pool& p) {
    const Element* dy = static_cast<const Element*>(p.x);
    Element* dx = static_cast<Element*>(p.y);
    const int64_t channels = p.channels;
#pragma omp parallel for schedule(static) num_threads(p.threads)
    for (int64_t row = 0; row < p.batch * p.height; ++row) {
        const int64_t image = row / p.height, down = row % p.height;
        const Windows rows(down, p.out_height, p.kernel[0], p.stride[0], p.padding[0], p.dilation[0]);
        for (int64_t right = 0; right < p.width; ++right) {
            const Windows columns(right, p.out_width, p.kernel[1], p.stride[1], p.padding[1], p.dilation[1]);
            Element* to = dx + (row * p.width + right) * channels;
            const auto gather = [&](auto add) {
                for (int64_t i = rows.first; i < rows.end; ++i) {
                    const int64_t across = down + p.padding[0] - i * p.stride[0];
                    if (p.dilation[0] > 1 && across % p.dilation[0]) continue;
                    for (int64_t j = columns.first; j < columns.end; ++j) {
                        const int64_t along = right + p.padding[1] - j * p.stride[1];
                        if (p.dilation[1] > 1 && along % p.dilation[1]) continue;
                        const int64_t tap = across / p.dilation[0] * p.kernel[1] + along / p.dilation[1];
                        add(((image * p.out_height + i) * p.out_width + j) * channels, static_cast<int>(tap));
                    }
                }
            };
            int64_t c = 0;
            for (; c + kEight <= channels; c += kEight) {
                Eight sum{};
                gather([&](int64_t at, int tap) {
                    const EightIntegers place =
                        __builtin_convertvector(load<EightBytes>(p.place + at + c), EightIntegers);
                    sum = sum + (place == tap ? eight(dy + at + c) : Eight{});
                });
                store_eight(to + c, sum);
            }
            for (; c < channels; ++c) {
                float sum = 0;
                gather([&](int64_t at, int tap) {
                    if (p.place[at + c] == tap) sum += to_float(dy[at + c]);
                });
                store_one(to + c, sum);
            }
        }
    }
}

void max_pool_backward(const Pool& p) {
    p.bfloat16 ? max_pool_backward_as<Bfloat16>(p) : max_pool_backward_as<float>(p);
}

template <class Element>
void interleave_as(const Interleave& r) {
    const Element* y = static_cast<const Element*>(r.y);
    Element* x = static_cast<Element*>(r.x);
    const int64_t chunk = r.phases[1] * r.channels, pixel = r.phases[0] * chunk, length = r.width * r.channels;
#pragma omp parallel for schedule(static) num_threads(r.threads)
    for (int64_t row = 0; row < r.batch * r.height; ++row) {
        const int64_t image = row / r.height, down = row % r.height;
        const int64_t line = r.first[0] + down / r.phases[0];
        const Element* from = y + ((image * r.from_height + line) * r.from_width + r.first[1]) * pixel +
                              down % r.phases[0] * chunk;
        Element* to = x + row * length;
        int64_t done = 0;
        for (; done + chunk <= length; done += chunk, from += pixel)
            for (int64_t k = 0; k < chunk; ++k) to[done + k] = from[k];
        for (int64_t k = 0; done + k < length; ++k) to[done + k] = from[k];
    }
}

void interleave(const Interleave& r) { r.bfloat16 ? interleave_as<Bfloat16>(r) : interleave_as<float>(r); }

}  // namespace
