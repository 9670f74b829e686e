// The input gradient of a convolution that reads few channels, see network.py for the formula.
//
// Libraries block the channels that a kernel writes; there are too few of them here. So lanes are neighbouring
// columns of a phase, x = s t + q for t = 0, 1, ...: they read neighbouring columns of dy and share the weight.
// For that a row of dy is turned: each word of channels (a float32, or two bfloat16, whose products are added
// in one go) has its columns side by side. Every thread keeps the few rows that its row of pixels reads.

#pragma once

#ifdef _OPENMP
#include <omp.h>
#endif

#include "network.h"

namespace {

using cnnvis_fast::InputGradient;
using cnnvis_fast::kWidestFilter;

typedef std::int32_t Word;
constexpr int kColumns = kLanes == 16 ? 7 : 4;  // vectors of columns at a time, as many as the registers hold

template <class Element>
constexpr int kPair = sizeof(Word) / sizeof(Element);

// What a word of every lane adds.
inline Floats dot(float, Floats sum, Integers weight, Integers x) {
    return sum + bits<Floats>(weight) * bits<Floats>(x);
}
inline Floats dot(Bfloat16, Floats sum, Integers weight, Integers x) {
#if defined(__AVX512BF16__)
    return bits<Floats>(_mm512_dpbf16_ps(bits<__m512>(sum), bits<__m512bh>(weight), bits<__m512bh>(x)));
#else
    const Integers high = Integers{} + static_cast<Word>(0xffff0000);
    sum = sum + bits<Floats>(weight << 16) * bits<Floats>(x << 16);
    return sum + bits<Floats>(weight & high) * bits<Floats>(x & high);
#endif
}

// A column of dy, from some word on.
template <class Element>
inline void turn_column(const InputGradient& r, const Element* dy, int64_t word, int64_t j, Word* to) {
    const Element* from = dy + j * r.out_channels;
    const int64_t whole = r.out_channels / kPair<Element>;
    for (; word < whole; ++word) to[word * r.columns + j] = load<Word>(from + kPair<Element> * word);
    if (whole < r.words) to[whole * r.columns + j] = static_cast<Word>(from[r.out_channels - 1]);  // half of one
}

// One row of dy, turned; `to` is where its first column lies.
template <class Element>
void turn(const InputGradient& r, const Element* dy, Word* to) {
    const int64_t whole = r.out_channels / kPair<Element>;
    int64_t j = 0;
#if defined(__SSE2__)
    for (; j + 4 <= r.out_width; j += 4) {
        const Element* from = dy + j * r.out_channels;
        int64_t word = 0;
        for (; word + 4 <= whole; word += 4, from += 4 * kPair<Element>) {
            __m128 a = load<__m128>(from), b = load<__m128>(from + r.out_channels);
            __m128 c = load<__m128>(from + 2 * r.out_channels), d = load<__m128>(from + 3 * r.out_channels);
            _MM_TRANSPOSE4_PS(a, b, c, d);
            Word* at = to + word * r.columns + j;
            store(at, a);
            store(at + r.columns, b);
            store(at + 2 * r.columns, c);
            store(at + 3 * r.columns, d);
        }
        for (int64_t k = j; k < j + 4; ++k) turn_column(r, dy, word, k, to);
    }
#endif
    for (; j < r.out_width; ++j) turn_column(r, dy, 0, j, to);
}

// `Count` vectors of columns of one phase, from `t` on, into a row of pixels.
template <class Element, int C, int Count>
inline void columns_of(const InputGradient& r, const Word* rows, const Windows& from, int64_t down, int64_t phase,
                       int64_t t, float* pixels) {
    // Which positions of a filter's row reach the phase, and how far from t in dy.
    int64_t shift[kWidestFilter];
    int position[kWidestFilter], positions = 0;
    for (int m = 0; m < r.kernel[1]; ++m) {
        const int64_t along = phase + r.padding[1] - static_cast<int64_t>(m) * r.dilation[1];
        if (along % r.stride[1]) continue;
        shift[positions] = along / r.stride[1];
        position[positions++] = m;
    }
    Floats sums[Count][C] = {};
    for (int64_t i = from.first; i < from.end; ++i) {
        const int64_t across = down + r.padding[0] - i * r.stride[0];
        if (across % r.dilation[0]) continue;
        const Word* x = rows + i % r.kept * r.words * r.columns + r.left + t;
        const Word* weight = r.weight + across / r.dilation[0] * r.kernel[1] * r.words * C;
        for (int64_t word = 0; word < r.words; ++word, x += r.columns, weight += C)
            for (int k = 0; k < positions; ++k) {
                const Word* one = weight + position[k] * r.words * C;
                for (int n = 0; n < Count; ++n) {
                    const Integers value = load<Integers>(x + shift[k] + n * kLanes);
                    for (int c = 0; c < C; ++c)
                        sums[n][c] = dot(Element{}, sums[n][c], Integers{} + one[c], value);
                }
            }
    }
    for (int n = 0; n < Count; ++n)
        for (int lane = 0; lane < kLanes; ++lane) {
            const int64_t x = (t + n * kLanes + lane) * r.stride[1] + phase;
            if (x >= r.width) break;
            for (int c = 0; c < C; ++c) pixels[x * C + c] = sums[n][c][lane];
        }
}

template <class Element, int C>
void input_gradient_as(const InputGradient& r) {
    const Element* dy = static_cast<const Element*>(r.dy);
    const int64_t bands = r.batch % r.threads ? r.threads : 1, per_row = r.width * C;
    const int64_t size = r.kept * r.words * r.columns;
#pragma omp parallel for schedule(static) num_threads(r.threads)
    for (int64_t task = 0; task < r.batch * bands; ++task) {
#ifdef _OPENMP
        Word* rows = r.scratch + omp_get_thread_num() * scratch_words(r);
#else
        Word* rows = r.scratch;
#endif
        float* pixels = reinterpret_cast<float*>(rows + size);
        const int64_t image = task / bands, band = task % bands;
        int64_t turned = 0;  // rows of dy before this one are there, or are not needed
        for (int64_t down = r.height * band / bands; down < r.height * (band + 1) / bands; ++down) {
            const Windows from(down, r.out_height, r.kernel[0], r.stride[0], r.padding[0], r.dilation[0]);
            for (turned = turned < from.first ? from.first : turned; turned < from.end; ++turned)
                turn(r, dy + (image * r.out_height + turned) * r.out_width * r.out_channels,
                     rows + turned % r.kept * r.words * r.columns + r.left);
            for (int64_t phase = 0; phase < r.stride[1]; ++phase) {
                int64_t t = 0;
                const int64_t end = (r.width - phase + r.stride[1] - 1) / r.stride[1];
                for (; end - t > (kColumns - 1) * kLanes; t += kColumns * kLanes)
                    columns_of<Element, C, kColumns>(r, rows, from, down, phase, t, pixels);
                for (; end - t > kLanes; t += 2 * kLanes)
                    columns_of<Element, C, 2>(r, rows, from, down, phase, t, pixels);
                if (t < end) columns_of<Element, C, 1>(r, rows, from, down, phase, t, pixels);
            }
            Element* to = static_cast<Element*>(r.dx) + (image * r.height + down) * per_row;
            int64_t k = 0;
            for (; k + kLanes <= per_row; k += kLanes)
                store(to + k, Converted<Element>::from(load<Floats>(pixels + k)));
            for (; k < per_row; ++k) store_one(to + k, pixels[k]);
        }
    }
}

template <class Element>
void input_gradient_of(const InputGradient& r) {
    switch (r.channels) {
        case 1: return input_gradient_as<Element, 1>(r);
        case 2: return input_gradient_as<Element, 2>(r);
        case 3: return input_gradient_as<Element, 3>(r);
        case 4: return input_gradient_as<Element, 4>(r);
    }
}

void input_gradient(const InputGradient& r) {
    r.bfloat16 ? input_gradient_of<Bfloat16>(r) : input_gradient_of<float>(r);
}

}  // namespace
