// What the files of the Python side share. Tensors arrive as addresses: kernels/cpu/*.py are the only callers, and the
// doors (ops.py and its neighbours) have checked shapes, dtypes and layouts by then.

#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <string>

#include "kernels.h"

namespace cnnvis_fast {

using Address = std::uintptr_t;

template <class T>
T* at(Address address) {
    return reinterpret_cast<T*>(address);
}

// The kernels of a name that this CPU can run.
const Kernels& level(const std::string& name);

// Adds the ops inside a network to the module.
void bind_network(nanobind::module_& m);

}  // namespace cnnvis_fast
