// Python bindings of the ops that run inside a network.

#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "binding.h"

namespace nb = nanobind;
using namespace cnnvis_fast;

namespace {

void dot(const std::string& name, std::int64_t batch, std::int64_t size, Address h, Address maps, bool bfloat16,
         Address sums, int threads) {
    const std::unique_ptr<double[]> scratch(new double[batch * chunks(size)]);
    const Dot d{batch, size, at<const void>(h), at<const void>(maps), bfloat16, at<float>(sums), threads,
                scratch.get()};
    nb::gil_scoped_release unlocked;
    level(name).dot(d);
}

using Pair = std::array<std::int64_t, 2>;
using Windowing = std::array<Pair, 4>;  // kernel, stride, padding, dilation

// As wide as the widest vector, so that scratch memory is aligned to vectors.
struct alignas(64) Line {
    float floats[kLine];
};

using Parts = std::vector<std::array<std::int64_t, 3>>;  // channels, stride and address of each part

std::vector<Part> parts(const Parts& triples) {
    std::vector<Part> result;
    for (const auto& [channels, stride, x] : triples) result.push_back({channels, stride, at<const void>(x)});
    return result;
}

// Joins contiguous rows into longer rows, which fill more whole vectors.
template <class Arguments>
void join_rows(Arguments& arguments, std::vector<Part>& parts, std::initializer_list<std::int64_t*> strides) {
    if (parts.size() != 1 || parts[0].channels % 8) return;
    Part& part = parts[0];
    for (const std::int64_t* stride : strides)
        if (*stride != part.channels) return;
    while (arguments.rows % 2 == 0 && part.channels < 2048) {
        arguments.rows /= 2;
        part.channels *= 2;
        for (std::int64_t* stride : strides) *stride = part.channels;
    }
}

void rectify(const std::string& name, std::int64_t rows, const Parts& triples, Address other,
             std::int64_t other_stride, Address y, Address mask, bool bfloat16, int threads) {
    std::vector<Part> all = parts(triples);
    Rectify r{rows, static_cast<int>(all.size()), all.data(), at<const void>(other), other_stride,
              at<void>(y), at<std::uint8_t>(mask), bfloat16, threads};
    std::int64_t* const first = &all[0].stride;
    other ? join_rows(r, all, {first, &r.other_stride}) : join_rows(r, all, {first});
    nb::gil_scoped_release unlocked;
    level(name).rectify(r);
}

void rectify_backward(const std::string& name, std::int64_t rows, const Parts& triples, Address g,
                      std::int64_t g_stride, Address other, std::int64_t other_stride, Address mask,
                      bool bfloat16, int threads) {
    std::vector<Part> all = parts(triples);
    RectifyBackward r{rows, static_cast<int>(all.size()), all.data(), at<const void>(g), g_stride,
                      at<const void>(other), other_stride, at<const std::uint8_t>(mask), bfloat16, threads};
    std::int64_t* const first = &all[0].stride;
    other ? join_rows(r, all, {first, &r.g_stride, &r.other_stride}) : join_rows(r, all, {first, &r.g_stride});
    nb::gil_scoped_release unlocked;
    level(name).rectify_backward(r);
}

template <class Arguments>
void set_windows(Arguments& arguments, Pair kernel, Pair stride, Pair padding, Pair dilation) {
    for (int axis : {0, 1}) {
        arguments.kernel[axis] = static_cast<int>(kernel[axis]);
        arguments.stride[axis] = static_cast<int>(stride[axis]);
        arguments.padding[axis] = static_cast<int>(padding[axis]);
        arguments.dilation[axis] = static_cast<int>(dilation[axis]);
    }
}

// `sizes`: batch, channels, height and width of the input, then height and width of the pooled output.
Pool pool(std::array<std::int64_t, 6> sizes, Pair kernel, Pair stride, Pair padding, Pair dilation, Address x,
          Address y, Address place, bool rectified, bool bfloat16, int threads) {
    Pool p{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], {}, {}, {}, {}, at<const void>(x), at<void>(y),
           at<std::uint8_t>(place), rectified, bfloat16, threads};
    set_windows(p, kernel, stride, padding, dilation);
    return p;
}

void max_pool(const std::string& name, std::array<std::int64_t, 6> sizes, Pair kernel, Pair stride, Pair padding,
              Pair dilation, Address x, Address y, Address place, bool rectified, bool bfloat16, int threads) {
    const Pool p = pool(sizes, kernel, stride, padding, dilation, x, y, place, rectified, bfloat16, threads);
    nb::gil_scoped_release unlocked;
    level(name).max_pool(p);
}

void max_pool_backward(const std::string& name, std::array<std::int64_t, 6> sizes, Pair kernel, Pair stride,
                       Pair padding, Pair dilation, Address dy, Address dx, Address place, bool bfloat16,
                       int threads) {
    const Pool p = pool(sizes, kernel, stride, padding, dilation, dy, dx, place, false, bfloat16, threads);
    nb::gil_scoped_release unlocked;
    level(name).max_pool_backward(p);
}

// `sizes`, here and below: batch, channels, height and width of x, then channels, height and width of the
// convolution's output.
InputGradient input_gradient_arguments(std::array<std::int64_t, 7> sizes, Pair kernel, Pair stride, Pair padding,
                                       Pair dilation, Address dy, Address mask, Address weight, Address dx,
                                       bool bfloat16, int threads) {
    InputGradient r{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], {}, {}, {}, {},
                    at<const void>(dy), at<const std::uint8_t>(mask), at<const std::int32_t>(weight), at<void>(dx),
                    bfloat16, threads,
                    bfloat16 ? (sizes[4] + 1) / 2 : sizes[4], 0, 0, 0, nullptr};
    set_windows(r, kernel, stride, padding, dilation);
    // A row of pixels reads `kept` neighboring rows of dy; a column reads up to `reach` pixels to the left and right.
    const std::int64_t reach = dilation[1] * (kernel[1] - 1);
    r.kept = dilation[0] * (kernel[0] - 1) / stride[0] + 1;
    r.left = reach / stride[1] + 1;
    r.columns = r.left + std::max(r.out_width, r.width / stride[1] + 2 * kWidest) + padding[1] / stride[1] + 1;
    return r;
}

StemConvolution stem_convolution_arguments(std::array<std::int64_t, 7> sizes, Pair kernel, Pair stride, Pair padding,
                                           Pair dilation, Address x, Address weight, Address bias, Address y,
                                           Address mask, bool bfloat16, int threads) {
    StemConvolution r{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], {}, {}, {}, {},
                      at<const void>(x), at<const std::int32_t>(weight), at<const float>(bias), at<void>(y),
                      at<std::uint8_t>(mask), bfloat16, threads, 0, nullptr};
    set_windows(r, kernel, stride, padding, dilation);
    const std::int64_t row = kernel[1] * sizes[1];
    r.words = bfloat16 ? (row + 1) / 2 : row;
    return r;
}

// Allocates the threads' scratch memory and stores its address in `r`.
std::unique_ptr<std::int32_t[]> make_scratch(InputGradient& r) {
    std::unique_ptr<std::int32_t[]> scratch(new std::int32_t[r.threads * scratch_words(r)]());
    r.scratch = scratch.get();
    return scratch;
}

std::unique_ptr<float[]> make_scratch(StemConvolution& r) {
    std::unique_ptr<float[]> scratch(new float[r.threads * r.kernel[0] * row_elements(r)]);
    r.scratch = scratch.get();
    return scratch;
}

void input_gradient(const std::string& name, std::array<std::int64_t, 7> sizes, Pair kernel, Pair stride,
                    Pair padding, Pair dilation, Address dy, Address mask, Address weight, Address dx,
                    bool bfloat16, int threads) {
    InputGradient r = input_gradient_arguments(sizes, kernel, stride, padding, dilation, dy, mask, weight, dx, bfloat16,
                                               threads);
    const auto scratch = make_scratch(r);
    nb::gil_scoped_release unlocked;
    level(name).input_gradient(r);
}

void stem_convolution(const std::string& name, std::array<std::int64_t, 7> sizes, Pair kernel, Pair stride,
                      Pair padding, Pair dilation, Address x, Address weight, Address bias, Address y, Address mask,
                      bool bfloat16, int threads) {
    StemConvolution r = stem_convolution_arguments(sizes, kernel, stride, padding, dilation, x, weight, bias, y, mask,
                                                   bfloat16, threads);
    const auto scratch = make_scratch(r);
    nb::gil_scoped_release unlocked;
    level(name).stem_convolution(r);
}

void stem_gradient(const std::string& name, std::array<std::int64_t, 7> sizes, Pair kernel, Pair stride, Pair padding,
                   Pair dilation, Address x, Address weight, Address bias, Address maps, Address weight_backward,
                   Address dx, Address sums, bool bfloat16, int threads) {
    StemGradient r{
        stem_convolution_arguments(sizes, kernel, stride, padding, dilation, x, weight, bias, 0, 0, bfloat16, threads),
        input_gradient_arguments(sizes, kernel, stride, padding, dilation, maps, 0, weight_backward, dx, bfloat16,
                                 threads),
        at<float>(sums), nullptr, nullptr};
    const auto forward_scratch = make_scratch(r.forward);
    const auto backward_scratch = make_scratch(r.backward);
    const std::unique_ptr<double[]> row_sums(new double[r.backward.batch * r.backward.out_height]);
    const std::unique_ptr<std::uint8_t[]> masks(
        new std::uint8_t[threads * r.backward.out_width * r.backward.out_channels / 8]);
    r.row_sums = row_sums.get();
    r.masks = masks.get();
    nb::gil_scoped_release unlocked;
    level(name).stem_gradient(r);
}

// Allocates memory for elements of the network's dtype.
std::unique_ptr<char[]> make_scratch(std::int64_t elements, bool bfloat16) {
    return std::unique_ptr<char[]>(new char[elements * (bfloat16 ? 2 : 4)]);
}

// Describes a pooling behind a convolution: its input has the sizes of the convolution's output.
Pool pool_behind(std::array<std::int64_t, 7> sizes, std::array<std::int64_t, 2> out, Windowing windows, Address x,
                 Address y, Address place, bool rectified, bool bfloat16, int threads) {
    return pool({sizes[0], sizes[4], sizes[5], sizes[6], out[0], out[1]}, windows[0], windows[1], windows[2],
                windows[3], x, y, place, rectified, bfloat16, threads);
}

void stem_pool(const std::string& name, std::array<std::int64_t, 7> sizes, Pair kernel, Pair stride, Pair padding,
               Pair dilation, Pair out, Windowing windows, Address x, Address weight, Address bias, Address y,
               Address place, bool rectified, bool bfloat16, int threads) {
    StemPool r{
        stem_convolution_arguments(sizes, kernel, stride, padding, dilation, x, weight, bias, 0, 0, bfloat16, threads),
        pool_behind(sizes, out, windows, 0, y, place, rectified, bfloat16, threads), nullptr};
    const auto scratch = make_scratch(r.stem);
    const auto rows = make_scratch(threads * kept_rows(r.pool) * r.pool.width * r.pool.channels, bfloat16);
    r.rows = rows.get();
    nb::gil_scoped_release unlocked;
    level(name).stem_pool(r);
}

void stem_pool_backward(const std::string& name, std::array<std::int64_t, 7> sizes, Pair kernel, Pair stride,
                        Pair padding, Pair dilation, Pair out, Windowing windows, Address dy, Address place,
                        Address weight, Address dx, bool bfloat16, int threads) {
    StemPoolBackward r{
        input_gradient_arguments(sizes, kernel, stride, padding, dilation, 0, 0, weight, dx, bfloat16, threads),
        pool_behind(sizes, out, windows, dy, 0, place, false, bfloat16, threads), nullptr};
    const auto scratch = make_scratch(r.backward);
    const auto rows = make_scratch(threads * r.pool.width * r.pool.channels, bfloat16);
    r.rows = rows.get();
    nb::gil_scoped_release unlocked;
    level(name).stem_pool_backward(r);
}

void winograd(const std::string& name, std::array<std::int64_t, 7> sizes, Pair pooled, Pair padding, Address x,
              Address gate, bool gated_by_place, Address weight, Address bias, Address y, Address mask, Address place,
              bool rectified, int threads) {
    Winograd r{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], pooled[0], pooled[1],
               {static_cast<int>(padding[0]), static_cast<int>(padding[1])}, at<const void>(x),
               at<const std::uint8_t>(gate), gated_by_place, at<const std::int32_t>(weight), at<const float>(bias),
               at<void>(y), at<std::uint8_t>(mask), at<std::uint8_t>(place), rectified, threads, 0, nullptr};
    // A block's transformed pixels take at most half of a 1 MiB second-level cache. Its sums pass through that cache
    // too, so a block larger than is needed to read the filters rarely gains nothing.
    r.block = std::clamp<std::int64_t>((1 << 19) / (kPlaces * 14 * 2 * r.channels), 1, kMostGroups);
    const std::unique_ptr<Line[]> scratch(new Line[threads * scratch_floats(r) / kLine]);
    r.scratch = scratch[0].floats;
    nb::gil_scoped_release unlocked;
    level(name).winograd(r);
}

void pointwise(const std::string& name, std::array<std::int64_t, 3> sizes, Address x, Address weight, Address bias,
               Address y, Address mask, int threads) {
    Pointwise r{sizes[0], sizes[1], sizes[2], at<const void>(x), at<const std::int32_t>(weight),
                at<const float>(bias), at<void>(y), at<std::uint8_t>(mask), threads, 0, nullptr};
    // A group's pixels take an eighth of a 1 MiB second-level cache.
    r.group = std::max<std::int64_t>((1 << 17) / (kBlock * 2 * r.channels), 1);
    const std::unique_ptr<std::uint16_t[]> scratch(new std::uint16_t[kBlock * r.channels]());
    r.scratch = scratch.get();
    nb::gil_scoped_release unlocked;
    level(name).pointwise(r);
}

}  // namespace

void cnnvis_fast::bind_network(nb::module_& m) {
    m.def("dot", &dot);
    m.def("rectify", &rectify);
    m.def("rectify_backward", &rectify_backward);
    m.def("max_pool", &max_pool);
    m.def("max_pool_backward", &max_pool_backward);
    m.def("input_gradient", &input_gradient);
    m.def("stem_convolution", &stem_convolution);
    m.def("stem_gradient", &stem_gradient);
    m.def("stem_pool", &stem_pool);
    m.def("stem_pool_backward", &stem_pool_backward);
    m.def("winograd", &winograd);
    m.def("pointwise", &pointwise);
}
