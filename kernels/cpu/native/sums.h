// dot and restrain (formulas in ops/sums.py), and the sums that they and ascend_ share.
//
// A sum over an picture adds the sums of the same chunks in the same order, so the bits do not depend on the number of
// threads.

#pragma once

#include "kernels.h"
#include "vectors.h"

namespace {

using cnnvis_fast::chunk_length;
using cnnvis_fast::chunks;
using cnnvis_fast::Dot;
using cnnvis_fast::kChunk;
using cnnvis_fast::Restrain;
using std::int64_t;

constexpr int kSums = 4;     // independent sums, so that an addition need not wait for the previous one
constexpr int kRounds = 16;  // float additions before the result is added in double

inline double added_up(const Floats (&sums)[kSums]) {
    double total = 0;
    for (int k = 0; k < kSums; ++k)
        for (int lane = 0; lane < kLanes; ++lane) total += sums[k][lane];
    return total;
}

inline double sum_of_products(const float* a, const float* b, int64_t count) {
    constexpr int64_t step = kSums * kLanes;
    double total = 0;
    int64_t i = 0;
    while (i + step <= count) {
        Floats sums[kSums] = {};
        for (int round = 0; round < kRounds && i + step <= count; ++round, i += step)
            for (int k = 0; k < kSums; ++k)
                sums[k] = sums[k] + load<Floats>(a + i + k * kLanes) * load<Floats>(b + i + k * kLanes);
        total += added_up(sums);
    }
    for (; i < count; ++i) total += static_cast<double>(a[i]) * b[i];
    return total;
}

// Two neighbors share a lane: shifting it up gives the first as a float, masking the low half gives the second.
inline double sum_of_products(const Bfloat16* a, const Bfloat16* b, int64_t count) {
    constexpr int64_t step = kSums * kLanes;
    const Integers high = Integers{} + static_cast<std::int32_t>(0xffff0000u);
    double total = 0;
    int64_t i = 0;
    while (i + step <= count) {
        Floats sums[kSums] = {};
        for (int round = 0; round < kRounds && i + step <= count; ++round, i += step) {
            for (int k = 0; k < kSums; k += 2) {
                const Integers x = load<Integers>(a + i + k * kLanes), y = load<Integers>(b + i + k * kLanes);
                sums[k] = sums[k] + bits<Floats>(x << 16) * bits<Floats>(y << 16);
                sums[k + 1] = sums[k + 1] + bits<Floats>(x & high) * bits<Floats>(y & high);
            }
        }
        total += added_up(sums);
    }
    for (; i < count; ++i) total += static_cast<double>(to_float(a[i])) * to_float(b[i]);
    return total;
}

inline double sum_of_squares(const float* x, int64_t count) { return sum_of_products(x, x, count); }

template <class Element>
void dot_as(const Dot& d) {
    const Element *h = static_cast<const Element*>(d.h), *maps = static_cast<const Element*>(d.maps);
    const int64_t pieces = chunks(d.size);
#pragma omp parallel for schedule(static) num_threads(d.threads)
    for (int64_t task = 0; task < d.batch * pieces; ++task) {
        const int64_t start = task % pieces * kChunk, first = task / pieces * d.size + start;
        d.scratch[task] = sum_of_products(h + first, maps + first, chunk_length(d.size, start));
    }
    for (int64_t picture = 0; picture < d.batch; ++picture) {
        double total = 0;
        for (int64_t chunk = 0; chunk < pieces; ++chunk) total += d.scratch[picture * pieces + chunk];
        d.sums[picture] = static_cast<float>(total);
    }
}

void dot(const Dot& d) { d.bfloat16 ? dot_as<Bfloat16>(d) : dot_as<float>(d); }

// Subtracts from dz the excess of the logits beyond the limit, mixed back by color^T, times `pull`.
template <int C>
void restrain_pixels(const Restrain& r, int64_t picture, int64_t start, float pull) {
    const int64_t count = chunk_length(r.plane, start), offset = picture * C * r.plane + start;
    const Floats limit = all(r.limit);
    for (int64_t done = 0; done < count; done += kLanes) {
        const int64_t some = count - done < kLanes ? count - done : kLanes;
        Floats z[C], beyond[C];
        for (int c = 0; c < C; ++c) z[c] = load_some(r.z + offset + c * r.plane + done, some);
        for (int c = 0; c < C; ++c) {
            Floats logit = z[0] * r.color[c * C];
            for (int k = 1; k < C; ++k) logit = logit + z[k] * r.color[c * C + k];
            const Floats below = logit > limit ? limit : logit;  // NaN stays itself
            beyond[c] = logit - (below < -limit ? -limit : below);
        }
        for (int k = 0; k < C; ++k) {
            Floats sum = beyond[0] * r.color[k];
            for (int c = 1; c < C; ++c) sum = sum + beyond[c] * r.color[c * C + k];
            const int64_t at = offset + k * r.plane + done;
            store_some(r.out + at, load_some(r.dz + at, some) - pull * sum, some);
        }
    }
}

template <int C>
void restrain_as(const Restrain& r) {
    const int64_t size = C * r.plane, pieces = chunks(size), pixels = chunks(r.plane);
#pragma omp parallel for schedule(static) num_threads(r.threads)
    for (int64_t task = 0; task < r.batch * pieces; ++task) {
        const int64_t start = task % pieces * kChunk;
        r.scratch[task] = sum_of_squares(r.dz + task / pieces * size + start, chunk_length(size, start));
    }
#pragma omp parallel for schedule(static) num_threads(r.threads)
    for (int64_t task = 0; task < r.batch * pixels; ++task) {
        const int64_t picture = task / pixels;
        double square = 0;
        for (int64_t chunk = 0; chunk < pieces; ++chunk) square += r.scratch[picture * pieces + chunk];
        const float mean = static_cast<float>(square / static_cast<double>(size));
        restrain_pixels<C>(r, picture, task % pixels * kChunk, r.strength * __builtin_sqrtf(mean));
    }
}

void restrain(const Restrain& r) {
    switch (r.channels) {
        case 1: return restrain_as<1>(r);
        case 2: return restrain_as<2>(r);
        case 3: return restrain_as<3>(r);
        case 4: return restrain_as<4>(r);
    }
}

}  // namespace
