// Python bindings of the compiled CPU kernels: the module and the ops on pictures. bindings_network.cpp has the ops
// that run inside a network.
//
// One binary has to serve every machine, so the kernels are compiled once for each instruction set and chosen by name;
// levels() lists the sets that this CPU can run.

#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>

#ifdef CNNVIS_FAST_X86
#include <cpuid.h>
#endif

#ifdef _OPENMP
#include <dlfcn.h>
#include <omp.h>
#endif

#include <array>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "binding.h"

namespace nb = nanobind;
using namespace cnnvis_fast;

namespace cnnvis_fast {
namespace baseline {
extern const Kernels kernels;
}
#ifdef CNNVIS_FAST_X86
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
#ifdef CNNVIS_FAST_BFLOAT16
namespace avx512_bfloat16 {
extern const Kernels kernels;
}
#endif
#endif
}  // namespace cnnvis_fast

namespace {

struct Level {
    const char* name;
    const Kernels* kernels;
};

#ifdef CNNVIS_FAST_X86
// Chooses the kernels with bfloat16 products if the CPU has that instruction.
const Kernels* of_avx512() {
#ifdef CNNVIS_FAST_BFLOAT16
    if (__builtin_cpu_supports("avx512bf16")) return &avx512_bfloat16::kernels;
#endif
    return &avx512::kernels;
}
#endif

// Returns whether vector instructions are the CPU's fastest way to multiply bfloat16. They are not where it has matrix
// units (AMX), which libraries use and which are many times faster.
bool multiplies_bfloat16() {
#ifdef CNNVIS_FAST_BFLOAT16
    unsigned a = 0, b = 0, c = 0, d = 0;
    const bool matrix_units = __get_cpuid_count(7, 0, &a, &b, &c, &d) && d >> 22 & 1;
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512bf16") && !matrix_units;
#else
    return false;
#endif
}

// Returns the instruction sets that this CPU can run, the widest first.
const std::vector<Level>& supported() {
    static const std::vector<Level> levels = [] {
        std::vector<Level> found;
#ifdef CNNVIS_FAST_X86
        __builtin_cpu_init();
        const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
        if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
            found.push_back({"avx512", of_avx512()});
        if (avx2) found.push_back({"avx2", &avx2::kernels});
#endif
        found.push_back({"baseline", &baseline::kernels});
        return found;
    }();
    return levels;
}

Pictures pictures(nb::tuple shape, Address jitter, Address affine, int threads, std::unique_ptr<float[]>& scratch) {
    Pictures p{nb::cast<std::int64_t>(shape[0]), nb::cast<std::int64_t>(shape[1]), nb::cast<std::int64_t>(shape[2]),
               nb::cast<std::int64_t>(shape[3]), at<const std::int64_t>(jitter), at<const float>(affine), threads,
               nullptr};
    if (affine) {
        scratch.reset(new float[threads * scratch_floats(p)]);
        p.scratch = scratch.get();
    }
    return p;
}

void render(const std::string& name, nb::tuple shape, Address jitter, Address affine, int threads, Address z,
            Address color, Address mean, Address std, Address x, bool bfloat16) {
    std::unique_ptr<float[]> scratch;
    const Render r{pictures(shape, jitter, affine, threads, scratch), at<const float>(z), at<const float>(color),
                   at<const float>(mean), at<const float>(std), at<void>(x), bfloat16};
    nb::gil_scoped_release unlocked;
    level(name).render(r);
}

void render_backward(const std::string& name, nb::tuple shape, Address jitter, Address affine, int threads,
                     Address g, bool bfloat16, Address z, Address color, Address std, Address dz) {
    std::unique_ptr<float[]> scratch;
    const RenderBackward r{pictures(shape, jitter, affine, threads, scratch), at<const void>(g), bfloat16,
                           at<const float>(z), at<const float>(color), at<const float>(std), at<float>(dz)};
    nb::gil_scoped_release unlocked;
    level(name).render_backward(r);
}

void ascend(const std::string& name, std::int64_t batch, std::int64_t size, std::int64_t bands, int threads,
            const std::string& second_moment, Address p, Address m, Address v, Address dp, Address schedule,
            Address band, double beta1, double beta2, double epsilon, double weight_decay, Address energy) {
    const SecondMoment kind = second_moment == "none"    ? SecondMoment::none
                              : second_moment == "image" ? SecondMoment::image
                              : second_moment == "band"  ? SecondMoment::band
                                                         : SecondMoment::coefficient;
    Ascend a{batch, size, bands, kind, at<float>(p), at<float>(m), at<float>(v), at<const float>(dp),
             at<const float>(schedule), at<const std::int64_t>(band), beta1, beta2, epsilon, weight_decay,
             at<float>(energy), threads, nullptr};
    const std::unique_ptr<double[]> scratch(new double[batch * ascend_doubles(a)]);
    a.scratch = scratch.get();
    nb::gil_scoped_release unlocked;
    level(name).ascend(a);
}

void restrain(const std::string& name, std::array<std::int64_t, 4> shape, Address dz, Address z, Address color,
              double strength, double limit, Address out, int threads) {
    const std::int64_t plane = shape[2] * shape[3];
    const std::unique_ptr<double[]> scratch(new double[shape[0] * chunks(shape[1] * plane)]);
    const Restrain r{shape[0], shape[1], plane, at<const float>(dz), at<const float>(z), at<const float>(color),
                     at<float>(out), static_cast<float>(strength), static_cast<float>(limit), threads,
                     scratch.get()};
    nb::gil_scoped_release unlocked;
    level(name).restrain(r);
}

nb::list levels() {
    nb::list names;
    for (const Level& candidate : supported()) names.append(candidate.name);
    return names;
}

std::string compiler() {
#if defined(__clang__)
    return "Clang " __clang_version__;
#else
    return "GCC " __VERSION__;
#endif
}

// Returns the path of the OpenMP library. It has to be torch's own: two thread pools would compete for the cores.
std::string openmp() {
#ifdef _OPENMP
    Dl_info found;
    if (dladdr(reinterpret_cast<void*>(&omp_get_max_threads), &found) && found.dli_fname) return found.dli_fname;
    return "unknown";
#else
    return "";
#endif
}

nb::dict build_info() {
    nb::dict info;
    info["compiler"] = compiler();
    info["cxx_standard"] = static_cast<long>(__cplusplus);
    info["levels"] = levels();
    info["openmp"] = openmp();
    return info;
}

}  // namespace

const Kernels& cnnvis_fast::level(const std::string& name) {
    for (const Level& candidate : supported())
        if (name == candidate.name) return *candidate.kernels;
    throw std::invalid_argument("this CPU has no kernels named " + name + ": expected one of levels()");
}

NB_MODULE(_cpu, m) {
    m.doc() = "Compiled CPU kernels of cnnvis_fast.";
    m.attr("MOST_CHANNELS") = kMostChannels;
    m.attr("PANEL") = kPanel;
    m.attr("WIDEST_FILTER") = kWidestFilter;
    m.def("build_info", &build_info, "Returns the compiler, the instruction sets and the OpenMP library.");
    m.def("multiplies_bfloat16", &multiplies_bfloat16,
          "Returns whether vector instructions are this CPU's fastest way to multiply bfloat16.");
    m.def("levels", &levels, "Returns the names of the instruction sets that this CPU can run, the widest first.");
    m.def("render", &render);
    m.def("render_backward", &render_backward);
    m.def("ascend_", &ascend);
    m.def("restrain", &restrain);
    bind_network(m);
}
