// Rectifiers inside a network; the formulas are in ops/rectify.py.
//
// Tensors are rows of channels, float32 or bfloat16. These ops are bound by memory, so vectors hold eight channels on
// every instruction set, as many as a mask's byte has bits. The threads share the rows, and each row is written by one
// thread, so the bits do not depend on the number of threads.

#pragma once

#include "kernels.h"
#include "vectors.h"

namespace {

using cnnvis_fast::channels;
using cnnvis_fast::mask_bytes;
using cnnvis_fast::Part;
using cnnvis_fast::Rectify;
using cnnvis_fast::RectifyBackward;
using std::int64_t;
using std::uint8_t;

constexpr int kEight = 8;
typedef float Eight __attribute__((vector_size(32)));
typedef std::int32_t EightIntegers __attribute__((vector_size(32)));
typedef std::uint32_t EightWords __attribute__((vector_size(32)));
typedef std::uint16_t EightHalves __attribute__((vector_size(16)));

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

// Returns the value as if it had been stored and loaded again.
inline Eight as_stored(float, Eight value) { return value; }
inline Eight as_stored(Bfloat16, Eight value) {
    Bfloat16 kept[kEight];
    store_eight(kept, value);
    return eight(kept);
}

// Returns the sign of each lane as one bit.
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

// Rectifies one part of a row. `Made` says whether y is written, `Sum` whether a second term is added first.
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

// Does all parts of a row before the next row: part by part, the loop would read and write half rows, which the CPU
// prefetches badly.
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

}  // namespace
