// The compiled CPU kernels. One binary has to serve every machine, so it is built for the baseline
// instruction set and looks at run time for what the CPU can do; build_info() reports both.

#include <nanobind/nanobind.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include <string>

namespace nb = nanobind;

namespace {

std::string compiler() {
#if defined(__clang__)
    return "Clang " __clang_version__;
#elif defined(__GNUC__)
    return "GCC " __VERSION__;
#elif defined(_MSC_VER)
    return "MSVC " + std::to_string(_MSC_FULL_VER);
#else
    return "unknown";
#endif
}

// MSVC keeps __cplusplus at its C++98 value unless told otherwise.
long cxx_standard() {
#ifdef _MSVC_LANG
    return _MSVC_LANG;
#else
    return __cplusplus;
#endif
}

nb::list cpu_features() {
    nb::list features;
#if (defined(__GNUC__) || defined(__clang__)) && (defined(__x86_64__) || defined(__i386__))
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2")) features.append("avx2");
    if (__builtin_cpu_supports("avx512f")) features.append("avx512f");
#if defined(__clang__) || __GNUC__ >= 11  // earlier GCC does not know the name
    if (__builtin_cpu_supports("avx512bf16")) features.append("avx512_bf16");
#endif
#endif
    return features;
}

nb::dict build_info() {
    nb::dict info;
    info["compiler"] = compiler().c_str();
    info["cxx_standard"] = cxx_standard();
#ifdef _OPENMP
    info["openmp"] = true;
    info["max_threads"] = omp_get_max_threads();
#else
    info["openmp"] = false;
    info["max_threads"] = 1;
#endif
    info["cpu_features"] = cpu_features();
    return info;
}

}  // namespace

NB_MODULE(_cpu, m) {
    m.doc() = "Compiled CPU kernels of cnnvis_fast.";
    m.def("build_info", &build_info,
          "Describe the compiler, the threading and the CPU's vector extensions.");
}
