// The number of the current thread in a parallel loop.

#pragma once

#include <cstdint>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace {

inline std::int64_t thread_number() {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

}  // namespace
